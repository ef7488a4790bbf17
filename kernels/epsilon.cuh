// What keeps logarithms and quotients of the losses, of disambiguation and of the class prior finite.
#pragma once

// eps: added to what a logarithm is taken of, and to sums that are divided by.
constexpr float EPSILON = 1e-9f;
