// Positions in the counters f32 that a training plan sums over an epoch.
#pragma once

// Loss of the last step.
constexpr int LAST_LOSS = 0;
// Sum of the losses of the steps.
constexpr int LOSS = 1;
// Rows whose weak view's largest logit is the true class.
constexpr int CORRECT = 2;
// From here on `count_finite_steps` watches: n after n steps that were all finite, -n where step n (from 1)
// was the first that was not.
constexpr int WATCHED = 3;
