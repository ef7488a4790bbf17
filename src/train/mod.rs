//! Training: the recorded step, the epoch loop, evaluation, checkpoints, and the run's folder.
//!
//! | file | what |
//! |---|---|
//! | [`schedule`] | learning rate and update flag of an epoch |
//! | [`engine`] | network, method, confidence rows and the recorded step, assembled in one place |
//! | [`step`] | recording the training step and its state |
//! | [`resident`] | the training set on the device, and the views of a step |
//! | `next_epoch` | the order of an epoch and its augmentation parameters, drawn while the one before trains |
//! | [`evaluate`] | from test logits to the field's metrics |
//! | [`metrics`] | the results of an epoch, as a line of a file and on the terminal |
//! | [`model`] | network, optimiser and class-prior estimate together, saved and restored |
//! | [`divergence`] | finding values that are no longer finite, and the error that ends the run |
//! | [`resume_checks`] | whether settings and data are those of a checkpoint |
//! | [`changes`] | settings that change on a resume, and what `config.toml` says of them |
//! | [`branch`] | where a new run from a checkpoint begins |
//! | [`checkpoint`] | the file format: safetensors with a checksum |
//! | [`device_choice`] | opening the device that the settings name |
//! | [`predict`] | class probabilities of any images by a trained network |
//! | [`labels`] | the labels that a run has made of candidate sets |
//! | [`observed`] | what a run writes for people to look at |
//! | [`progress`] | how a run is shown while it goes on |
//! | [`choice`] | making the method and the debias that the settings name |
//! | [`part_of_epoch`] | what a checkpoint inside an epoch holds besides |
//! | [`stop`] | signals and time limits that stop a run |
//! | [`looks`] | when to look at what the device has counted |
//! | [`room_on_gpu`] | what a run that does not fit needs, and which batch fits |
//! | [`tiles`] | what a run's tiles are chosen by, kept for its resumes |
//! | [`training`] | the engine with resident data, and how an epoch runs |
//! | [`statistics`] | confidence and label accuracy of the confidence rows |
//! | [`replay`] | given steps on given tensors, to check against other engines |
//! | [`tensor_file`] | safetensors files with metadata |
//! | [`run`] | a whole run |
//! | [`together`] | a run by several processes: what they compare, share and decide together |
//! | [`run_folder`] | what a run leaves on disk |
//! | [`grid`] | the runs of a table of results, and how far each is |

pub mod branch;
pub mod changes;
pub mod checkpoint;
pub mod choice;
pub mod device_choice;
pub mod divergence;
pub mod engine;
pub mod evaluate;
pub mod grid;
pub mod labels;
pub mod looks;
pub mod metrics;
pub mod model;
mod next_epoch;
pub mod observed;
pub mod part_of_epoch;
pub mod predict;
pub mod progress;
pub mod replay;
pub mod resident;
pub mod resume_checks;
pub mod room_on_gpu;
pub mod run;
pub mod run_folder;
pub mod schedule;
pub mod statistics;
pub mod step;
pub mod stop;
pub mod tensor_file;
pub mod tiles;
pub mod together;
pub mod training;
