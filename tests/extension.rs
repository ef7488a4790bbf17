//! Extending the crate from outside: a method, and an operation with its kernels.

#[allow(dead_code, reason = "its main function")]
#[path = "../examples/own_method.rs"]
mod own_method;

#[allow(dead_code, reason = "its main function")]
#[path = "../examples/own_kernel.rs"]
mod own_kernel;

use records::device::cpu::CpuDevice;
use records::pll::proden;
use records::settings::Settings;
use records::train::tensor_file::{TensorFile, Values};

/// The method in `examples/own_method.rs` equals PRODEN while PRODEN updates no row: the same bits of every
/// loss and of every weight after two epochs.
#[test]
fn a_method_from_outside_trains() {
    let mut device = CpuDevice::new(1).unwrap();
    let settings = own_method::settings().unwrap();
    let (own, training) = own_method::train(&settings, &own_method::Averaging, &mut device).unwrap();
    assert_eq!(own.len(), 2);
    // Ten classes: the loss of an untrained network is near ln 10, whatever the rows are.
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

    // The last epoch's predictions for every sample in a step.
    let Values::F32(counts) = predictions else { panic!("{predictions:?}") };
    assert_eq!(counts.iter().sum::<f32>(), (training.steps * never.batch_size) as f32);
}

/// Values, some of them extreme, one more than whole blocks of them.
fn inputs() -> Vec<f32> {
    (0..513).map(|i| (i - 256) as f32 / 16.0).collect()
}

/// The gradient on the tape against central differences in f64; f32 rounds the operation's few steps to 1e-6
/// of values up to 16.
#[test]
fn an_operation_from_outside_is_differentiated() {
    let values = inputs();
    let [y, dx] = own_kernel::run(&values, &mut CpuDevice::new(1).unwrap()).unwrap();
    let silu = |x: f64| x / (1.0 + (-x).exp());
    for ((&x, &y), &dx) in values.iter().zip(&y).zip(&dx) {
        let x = f64::from(x);
        let expected = silu(silu(x));
        let slope = (silu(silu(x + 1e-6)) - silu(silu(x - 1e-6))) / 2e-6;
        assert!((f64::from(y) - expected).abs() < 1e-5, "{x}: {y}, {expected}");
        assert!((f64::from(dx) - slope).abs() < 1e-5, "{x}: {dx}, {slope}");
    }
}

/// Its kernels on the interpreter: `__expf` has an error of 2 ulp + 1.2e-7 of its argument, which for
/// arguments up to 16 moves y by less than 1e-5.
#[cfg(feature = "sim")]
#[test]
fn a_kernel_from_outside_agrees_with_its_cpu_twin() {
    use records::device::gpu::{self, DriverKind, Precision};
    let values = inputs();
    let cpu = own_kernel::run(&values, &mut CpuDevice::new(1).unwrap()).unwrap();
    let kernels = own_kernel::run(&values, &mut gpu::open(DriverKind::Sim, Precision::F32).unwrap()).unwrap();
    for (cpu, kernels) in cpu.iter().flatten().zip(kernels.iter().flatten()) {
        assert!((cpu - kernels).abs() < 2e-5, "{cpu}, {kernels}");
    }
}
