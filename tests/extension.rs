//! What the crate can be extended with from outside: a method.

#[allow(dead_code, reason = "its main function")]
#[path = "../examples/own_method.rs"]
mod own_method;

use records::device::cpu::CpuDevice;
use records::pll::proden;
use records::settings::Settings;
use records::train::tensor_file::{TensorFile, Values};

/// The loss of the method in `examples/own_method.rs` is that of PRODEN as long as PRODEN renews no row: the
/// same bits, of every loss and of every weight after two epochs.
#[test]
fn a_method_from_outside_trains() {
    let mut device = CpuDevice::new(1).unwrap();
    let settings = own_method::settings().unwrap();
    let (own, training) = own_method::train(&settings, &own_method::Averaging, &mut device).unwrap();
    assert_eq!(own.len(), 2);
    // Ten classes: a network that knows nothing yet is near ln 10, whatever the rows are.
    assert!(own.iter().all(|loss| (2.0..3.0).contains(loss)) && own[0] != own[1], "{own:?}");
    let mut ours = TensorFile::default();
    training.engine.export(&mut ours, &mut device).unwrap();

    let never = Settings { upd_start: settings.epochs, ..settings };
    let (losses, training) = own_method::train(&never, &proden::method(), &mut device).unwrap();
    let mut theirs = TensorFile::default();
    training.engine.export(&mut theirs, &mut device).unwrap();
    assert_eq!(own, losses);
    let (_, predictions) = ours.tensors.remove("predictions").expect("its state is saved");
    assert!(ours == theirs, "another state than PRODEN's");

    // The last epoch's predictions, of every sample that was stepped on.
    let Values::F32(counts) = predictions else { panic!("{predictions:?}") };
    assert_eq!(counts.iter().sum::<f32>(), (training.steps * never.batch_size) as f32);
}
