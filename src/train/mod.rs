//! Training: the recorded step, the epoch loop, evaluation, checkpoints, and the run's folder.
//!
//! | file | what |
//! |---|---|
//! | [`schedule`] | learning rate and update flag of an epoch |
//! | [`engine`] | network, method, confidences and the recorded step, assembled in one place |
//! | [`step`] | recording the training step and its state |
//! | [`resident`] | the training set on the device and the views of a step |
//! | [`evaluate`] | test logits to the field's metrics |
//! | [`metrics`] | what an epoch is summed up in |
//! | [`model`] | network, optimiser and class-prior state together, in and out of files |
//! | [`divergence`] | values that are no longer finite, and what then |
//! | [`resume_checks`] | the settings and data that a checkpoint goes with |
//! | [`checkpoint`] | the file format: safetensors with a checksum |
//! | [`device_choice`] | the device that the settings ask for |
//! | [`choice`] | the method and debias that the settings ask for |
//! | [`training`] | the engine on resident data, and an epoch of it |
//! | [`statistics`] | what the confidence rows say of themselves |
//! | [`replay`] | given steps on given tensors, for checking against other engines |
//! | [`tensor_file`] | safetensors files with metadata |
//! | [`run`] | a whole run |
//! | [`run_folder`] | what a run leaves on disk |
//! | [`grid`] | the runs of a table of results, and how far each is |

pub mod checkpoint;
pub mod choice;
pub mod device_choice;
pub mod divergence;
pub mod engine;
pub mod evaluate;
pub mod grid;
pub mod metrics;
pub mod model;
pub mod replay;
pub mod resident;
pub mod resume_checks;
pub mod run;
pub mod run_folder;
pub mod schedule;
pub mod statistics;
pub mod step;
pub mod tensor_file;
pub mod training;
