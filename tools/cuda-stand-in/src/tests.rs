//! The calls as a program makes them.
