// Keeps logarithms and quotients of the losses, the disambiguation and the class prior finite.
#pragma once

// eps: added to the argument of logarithms and to sums used as divisors.
constexpr float EPSILON = 1e-9f;
