//! Runs the PTX that NVRTC emits on the CPU: exactly, with checks, with counters.
