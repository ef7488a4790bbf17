// Positions in the step's control block, f32 [5] in device memory that the host writes once an epoch, so that one recorded step serves
// all epochs: those of primitive::control.
#pragma once

enum Control { LEARNING_RATE, UPDATE, MIXUP, ETA, RHO };
