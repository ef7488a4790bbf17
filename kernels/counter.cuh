// Positions in the counters, f32, that a training plan sums over an epoch.
#pragma once

// Loss of the last step.
constexpr int LAST_LOSS = 0;
// Sum of the losses of the steps.
constexpr int LOSS = 1;
// Rows in which the argmax of the weak view's logits is the true class.
constexpr int CORRECT = 2;
// First counter of `count_finite_steps`: n after n finite steps, -n if step n (from 1) was the first that was
// not finite.
constexpr int WATCHED = 3;
