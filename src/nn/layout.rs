//! The tensors of a network, in state_dict order.

/// A parameter.
#[derive(Clone, Debug, PartialEq)]
pub struct ParameterSpec {
    /// Its state_dict name.
    pub name: String,
    /// PyTorch's shape. Four dimensions mean convolution weights, `[Cout, Cin, kh, kw]`; on the device they
    /// are stored as `[Cout, kh, kw, Cin]`.
    pub shape: Vec<usize>,
    /// How it is initialised.
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

/// The distribution a parameter is initialised from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Initialisation {
    /// Normal of mean 0.
    Normal {
        /// Standard deviation.
        deviation: f64,
    },
    /// Uniform in +-`bound`.
    Uniform {
        /// Largest magnitude.
        bound: f64,
    },
    /// The same value everywhere.
    Constant(f32),
}

/// A batchnorm's running statistics: `name.running_mean`, initially 0, and `name.running_var`, initially 1.
#[derive(Clone, Debug, PartialEq)]
pub struct RunningSpec {
    /// The batchnorm's state_dict name.
    pub name: String,
    /// Channels of the batchnorm: the length of each of the two vectors.
    pub channels: usize,
}

/// All tensors of a network. Neighbours here are neighbours on the device: the weight and bias of a batchnorm
/// and of a classifier form one range.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NetworkLayout {
    /// Trainable parameters, in state_dict order.
    pub parameters: Vec<ParameterSpec>,
    /// Running statistics of the batchnorms, in state_dict order.
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
