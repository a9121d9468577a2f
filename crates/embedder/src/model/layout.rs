//! Which tensors a model has, under the names that the reference implementation gives them.

use super::config::{Config, Family, Text, Tower};
use super::names::{self, LayerNames, VisionNames};

/// One tensor of a model.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Spec {
    pub(super) name: String,
    pub(super) shape: Vec<usize>,
    pub(super) init: Init,
}

/// What a random model has in a tensor.
///
/// The deviations keep every sum of products near one, as in a model before training. Unlike
/// there, a picture's class token starts at zero and so becomes nothing but what it attends to:
/// all pictures would look alike under a large part that they have in common.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Init {
    Constant(f32),
    /// Mean zero and this deviation.
    Normal(f64),
    /// The same, but the first row is zero.
    NormalBelowFirstRow(f64),
}

/// Every tensor that is needed, in the order in which a file holds them.
pub(super) fn tensors(config: &Config) -> Vec<Spec> {
    let mut list = List::default();
    match config.family {
        Family::Clip => list.add("logit_scale", &[], Init::Constant(2.6592)),
        Family::Siglip => {
            list.add("logit_scale", &[1], Init::Constant(4.7));
            list.add("logit_bias", &[1], Init::Constant(-12.9));
        }
        Family::Dinov2 | Family::Vit => {}
    }
    if let Some(config_text) = &config.text {
        text(&mut list, config_text, config);
    }
    vision(&mut list, config);
    list.0
}

#[derive(Default)]
struct List(Vec<Spec>);

impl List {
    fn add(&mut self, name: impl Into<String>, shape: &[usize], init: Init) {
        self.0.push(Spec { name: name.into(), shape: shape.to_vec(), init });
    }

    fn linear(&mut self, name: &str, [rows, columns]: [usize; 2]) {
        self.add(format!("{name}.weight"), &[rows, columns], normal_for(columns));
        self.add(format!("{name}.bias"), &[rows], Init::Constant(0.0));
    }

    fn norm(&mut self, name: &str, width: usize) {
        self.add(format!("{name}.weight"), &[width], Init::Constant(1.0));
        self.add(format!("{name}.bias"), &[width], Init::Constant(0.0));
    }

    fn tower(&mut self, names: &LayerNames, tower: &Tower) {
        let width = tower.width;
        for i in 0..tower.layers {
            let layer = format!("{}.{i}", names.stack);
            let scale = |list: &mut Self, part: usize| {
                if let Some(scales) = names.scales {
                    list.add(format!("{layer}.{}", scales[part]), &[width], Init::Constant(1.0));
                }
            };
            self.norm(&format!("{layer}.{}", names.attention_norm), width);
            for input in names.attention_inputs {
                self.linear(&format!("{layer}.{input}"), [width, width]);
            }
            self.linear(&format!("{layer}.{}", names.attention_output), [width, width]);
            scale(self, 0);
            self.norm(&format!("{layer}.{}", names.mlp_norm), width);
            self.linear(&format!("{layer}.{}", names.widen), [tower.mlp_inputs(), width]);
            self.linear(&format!("{layer}.{}", names.narrow), [width, tower.mlp_width]);
            scale(self, 1);
        }
    }
}

fn text(list: &mut List, text: &Text, config: &Config) {
    let width = text.tower.width;
    let embeddings = "text_model.embeddings";
    let tokens = format!("{embeddings}.token_embedding.weight");
    list.add(tokens, &[text.vocabulary, width], Init::Normal(1.0));
    let positions = format!("{embeddings}.position_embedding.weight");
    list.add(positions, &[text.context_length, width], Init::Normal(0.1));
    list.tower(&names::TEXT_LAYERS, &text.tower);
    list.norm("text_model.final_layer_norm", width);
    let projection = names::text_projection(config.family);
    list.add(format!("{}.weight", projection.name), &[config.dimension, width], normal_for(width));
    if projection.has_bias {
        list.add(format!("{}.bias", projection.name), &[config.dimension], Init::Constant(0.0));
    }
}

fn vision(list: &mut List, config: &Config) {
    let vision = &config.vision;
    let names = VisionNames::of(config.family, vision);
    let (width, patch) = (vision.tower.width, vision.patch_size);
    let batched = |shape: &[usize]| match names.has_batch_axis {
        true => [&[1], shape].concat(),
        false => shape.to_vec(),
    };
    if let Some(class) = names.class {
        let shape = if names.has_batch_axis { vec![1, 1, width] } else { vec![width] };
        list.add(class, &shape, Init::Constant(0.0));
    }
    let patches = format!("{}.weight", names.patches);
    list.add(patches, &[width, 3, patch, patch], normal_for(3 * patch * patch));
    if names.has_patch_bias {
        list.add(format!("{}.bias", names.patches), &[width], Init::Constant(0.0));
    }
    match names.class {
        // The class token stands at the first position.
        Some(_) => {
            let shape = batched(&[vision.trained_patches() + 1, width]);
            list.add(names.positions, &shape, Init::NormalBelowFirstRow(0.1));
        }
        None => {
            let shape = batched(&[vision.trained_patches(), width]);
            list.add(names.positions, &shape, Init::Normal(0.1));
        }
    }
    if vision.registers > 0 {
        list.add(names.registers, &batched(&[vision.registers, width]), Init::Normal(0.1));
    }
    if let Some(norm) = names.input_norm {
        list.norm(norm, width);
    }
    list.tower(&names.layers, &vision.tower);
    list.norm(names.output_norm, width);
    if let Some(projection) = names.projection {
        list.add(format!("{projection}.weight"), &[config.dimension, width], normal_for(width));
    }
    if config.family == Family::Siglip {
        pooling_head(list, &vision.tower);
    }
}

fn pooling_head(list: &mut List, tower: &Tower) {
    let (head, width) = (names::POOLING_HEAD, tower.width);
    list.add(format!("{head}.probe"), &[1, 1, width], Init::Normal(1.0));
    list.add(format!("{head}.attention.in_proj_weight"), &[3 * width, width], normal_for(width));
    list.add(format!("{head}.attention.in_proj_bias"), &[3 * width], Init::Constant(0.0));
    list.linear(&format!("{head}.attention.out_proj"), [width, width]);
    list.norm(&format!("{head}.layernorm"), width);
    list.linear(&format!("{head}.mlp.fc1"), [tower.mlp_width, width]);
    list.linear(&format!("{head}.mlp.fc2"), [width, tower.mlp_width]);
}

/// Keeps the sum of `inputs` products of independent numbers at the deviation of one of them.
fn normal_for(inputs: usize) -> Init {
    Init::Normal(1.0 / (inputs as f64).sqrt())
}
