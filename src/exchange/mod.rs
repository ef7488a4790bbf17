//! Weights to and from other programs.
//!
//! | file | what |
//! |---|---|
//! | [`onnx`] | a network as an ONNX model, from its recorded forward pass |
//! | [`weights`] | a network's state_dict as a safetensors file, without what only training needs |
//! | [`torch`] | the tensors in a file of `torch.save` |
//! | [`pickle`] | the part of Python's pickle format that such files use; nothing in it is run |
//! | [`archive`] | the zip archive that they lie in |
//! | [`import`] | weights of a file as a checkpoint |

pub mod archive;
pub mod import;
pub mod onnx;
pub mod pickle;
pub mod torch;
pub mod weights;
