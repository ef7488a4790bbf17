//! SGD with momentum and weight decay, with PyTorch's formulas: one pass over the flat arena of all
//! parameters.

use rayon::prelude::*;

/// The scalars of a step.
#[derive(Clone, Copy)]
pub(super) struct SgdScalars {
    pub rate: f32,
    pub momentum: f32,
    pub weight_decay: f32,
    pub nesterov: bool,
    /// Takes the loss scale out of a gradient.
    pub unscale: f32,
}

/// g += wd p; v = mu v + g; p -= rate v, or with Nesterov's momentum p -= rate (g + mu v). As v is initially
/// 0, this includes PyTorch's first step, v = g.
pub(super) fn sgd(settings: SgdScalars, gradients: &[f32], velocity: &mut [f32], parameters: &mut [f32]) {
    const CHUNK: usize = 1 << 14;
    let SgdScalars { rate, momentum, weight_decay, nesterov, unscale } = settings;
    let chunks =
        gradients.par_chunks(CHUNK).zip(velocity.par_chunks_mut(CHUNK)).zip(parameters.par_chunks_mut(CHUNK));
    chunks.for_each(|((gradients, velocity), parameters)| {
        for ((&g, v), p) in gradients.iter().zip(velocity).zip(parameters) {
            let g = g * unscale + weight_decay * *p;
            *v = momentum * *v + g;
            *p -= rate * if nesterov { g + momentum * *v } else { *v };
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_steps_by_hand() {
        let settings =
            SgdScalars { rate: 0.5, momentum: 0.5, weight_decay: 0.25, nesterov: false, unscale: 1.0 };
        let (mut v, mut p) = ([0.0], [4.0]);
        sgd(settings, &[1.0], &mut v, &mut p); // g = 1 + 1 = 2, v = 2, p = 3
        assert_eq!((v[0], p[0]), (2.0, 3.0));
        sgd(settings, &[0.25], &mut v, &mut p); // g = 0.25 + 0.75 = 1, v = 2, p = 2
        assert_eq!((v[0], p[0]), (2.0, 2.0));
    }

    #[test]
    fn nesterov_looks_a_step_ahead() {
        let settings =
            SgdScalars { rate: 0.5, momentum: 0.5, weight_decay: 0.25, nesterov: true, unscale: 1.0 };
        let (mut v, mut p) = ([0.0], [4.0]);
        sgd(settings, &[1.0], &mut v, &mut p); // g = 2, v = 2, p = 4 - 0.5 (2 + 1)
        assert_eq!((v[0], p[0]), (2.0, 2.5));
        sgd(settings, &[0.375], &mut v, &mut p); // g = 1, v = 2, p = 2.5 - 0.5 (1 + 1)
        assert_eq!((v[0], p[0]), (2.0, 1.5));
    }
}
