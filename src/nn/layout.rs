//! The tensors that a network names, in state_dict order.

/// A parameter.
#[derive(Clone, Debug, PartialEq)]
pub struct ParameterSpec {
    /// Its state_dict name.
    pub name: String,
    /// PyTorch's shape. One of four dimensions is a convolution's weights, `[Cout, Cin, kh, kw]`: on the
    /// device they are `[Cout, kh, kw, Cin]`.
    pub shape: Vec<usize>,
    /// Its first values.
    pub initialisation: Initialisation,
}

impl ParameterSpec {
    /// Number of values.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// First values of a parameter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Initialisation {
    /// Normal of mean 0.
    Normal { deviation: f64 },
    /// Uniform in +-`bound`.
    Uniform { bound: f64 },
    /// The same everywhere.
    Constant(f32),
}

/// A batchnorm's running statistics: `name.running_mean`, at first 0, and `name.running_var`, at first 1.
#[derive(Clone, Debug, PartialEq)]
pub struct RunningSpec {
    /// The batchnorm's state_dict name.
    pub name: String,
    pub channels: usize,
}

/// All tensors of a network. What lies side by side here does on the device: a batchnorm's weight and bias, a
/// classifier's too.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NetworkLayout {
    pub parameters: Vec<ParameterSpec>,
    pub running: Vec<RunningSpec>,
}

impl NetworkLayout {
    fn parameter(&mut self, name: String, shape: Vec<usize>, initialisation: Initialisation) {
        self.parameters.push(ParameterSpec { name, shape, initialisation });
    }

    /// The weights of a square convolution without bias, normal with the standard deviation sqrt(2 / (Cout kh
    /// kw)).
    pub fn convolution(&mut self, name: &str, [out_channels, in_channels, kernel]: [usize; 3]) {
        let deviation = (2.0 / (out_channels * kernel * kernel) as f64).sqrt();
        let shape = vec![out_channels, in_channels, kernel, kernel];
        self.parameter(format!("{name}.weight"), shape, Initialisation::Normal { deviation });
    }

    /// The weight 1 and bias 0 of a batchnorm, and its running statistics.
    pub fn batchnorm(&mut self, name: &str, channels: usize) {
        self.parameter(format!("{name}.weight"), vec![channels], Initialisation::Constant(1.0));
        self.parameter(format!("{name}.bias"), vec![channels], Initialisation::Constant(0.0));
        self.running.push(RunningSpec { name: name.into(), channels });
    }

    /// The weights and bias of a fully connected layer, uniform in +-1/sqrt(inputs).
    pub fn linear(&mut self, name: &str, [outputs, inputs]: [usize; 2]) {
        let initialisation = Initialisation::Uniform { bound: 1.0 / (inputs as f64).sqrt() };
        self.parameter(format!("{name}.weight"), vec![outputs, inputs], initialisation);
        self.parameter(format!("{name}.bias"), vec![outputs], initialisation);
    }
}
