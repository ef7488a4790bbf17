//! The moving mean feature and the class-prior estimate.

use records::device::Tensor;
use records::device::gpu::Precision;
use records::pll::debias::{EstimateClassPrior, MoveMeanFeature};

use crate::pair::{Pair, Random, Value};

/// A value passes at most R/32 + 32 f32 additions of numbers of one sign, where the CPU adds in f64: 48 *
/// 2^-24 = 3e-6 relative at worst for 512 rows.
#[test]
fn the_mean_feature() {
    let mut pair = Pair::new(Precision::F32);
    for [rows, inputs] in
        [[2, 512], [6, 8], [34, 33], [512, 512], [512, 7], [100, 2048], [512, 2048], [33, 64], [6, 1]]
    {
        let mut random = Random::new(&format!("mean {rows} {inputs}"));
        for momentum in [0.9, 0.5] {
            let operation = MoveMeanFeature { rows, inputs, momentum, features: Tensor(0), mean: Tensor(1) };
            let mut features = random.uniform(rows * inputs, 0.0, 2.0);
            features[rows * inputs - 1] = f32::NAN;
            // Rows of mixed views, which follow, do not contribute.
            features.extend(vec![f32::NAN; 3 * inputs]);
            let values = [Value::F32(features), Value::F32(random.uniform(inputs, 0.0, 2.0))];
            // Twice, so that the mean moves.
            let outcome = pair.run(&[operation.clone(), operation], &values);
            outcome.assert_close(&format!("{rows} x {inputs}"), Tensor(1), 3e-6, 0.0);
            assert_eq!(outcome.kernels[1].iter().filter(|v| v.is_nan()).count(), 1, "{rows} x {inputs}");
        }
    }
}

/// Scores are sums of D products in f32 in another order than the CPU's, of size up to 4: an error of 4
/// sqrt(D) 2^-24 = 1e-5 for 2048 features, which carries over to every logarithm.
#[test]
fn the_class_prior() {
    let mut pair = Pair::new(Precision::F32);
    for [classes, inputs] in [
        [2, 8],
        [10, 512],
        [20, 512],
        [100, 512],
        [200, 64],
        [7, 33],
        [33, 20],
        [257, 128],
        [10, 2048],
        [1000, 2048],
        [1, 8],
    ] {
        let mut random = Random::new(&format!("prior {classes} {inputs}"));
        let operation = EstimateClassPrior {
            inputs,
            classes,
            mean: Tensor(0),
            parameters: Tensor(1),
            log_prior: Tensor(2),
        };
        let mean = random.uniform(inputs, 0.0, 2.0);
        let ordinary = random.normal((inputs + 1) * classes, 2.0 / (inputs as f64).sqrt());
        // A bias that leaves the other classes nothing: ln eps.
        let mut saturated = ordinary.clone();
        saturated[inputs * classes] = 200.0;
        let mut spoiled = ordinary.clone();
        spoiled[0] = f32::NAN;
        for (what, parameters) in [("ordinary", ordinary), ("saturated", saturated), ("spoiled", spoiled)] {
            let values = [Value::F32(mean.clone()), Value::F32(parameters), Value::Output(classes)];
            let outcome = pair.run(std::slice::from_ref(&operation), &values);
            outcome.assert_close(&format!("{classes} x {inputs}, {what}"), Tensor(2), 2e-6, 1e-5);
            assert_eq!(outcome.cpu[2][0].is_nan(), what == "spoiled");
        }
    }
}
