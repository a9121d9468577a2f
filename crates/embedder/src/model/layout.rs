//! Which tensors a CLIP model has, under the names that the reference implementation gives them.

use super::config::{Config, Tower};

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
    list.add("logit_scale", &[], Init::Constant(2.6592));
    text(&mut list, config);
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

    fn tower(&mut self, name: &str, tower: &Tower) {
        let width = tower.width;
        for i in 0..tower.layers {
            let layer = format!("{name}.encoder.layers.{i}");
            self.norm(&format!("{layer}.layer_norm1"), width);
            for projection in ["q_proj", "k_proj", "v_proj", "out_proj"] {
                self.linear(&format!("{layer}.self_attn.{projection}"), [width, width]);
            }
            self.norm(&format!("{layer}.layer_norm2"), width);
            self.linear(&format!("{layer}.mlp.fc1"), [tower.mlp_width, width]);
            self.linear(&format!("{layer}.mlp.fc2"), [width, tower.mlp_width]);
        }
    }
}

fn text(list: &mut List, config: &Config) {
    let width = config.text.tower.width;
    let embeddings = "text_model.embeddings";
    let tokens = format!("{embeddings}.token_embedding.weight");
    list.add(tokens, &[config.text.vocabulary, width], Init::Normal(1.0));
    let positions = format!("{embeddings}.position_embedding.weight");
    list.add(positions, &[config.text.context_length, width], Init::Normal(0.1));
    list.tower("text_model", &config.text.tower);
    list.norm("text_model.final_layer_norm", width);
    list.add("text_projection.weight", &[config.dimension, width], normal_for(width));
}

fn vision(list: &mut List, config: &Config) {
    let width = config.vision.tower.width;
    let patch = config.vision.patch_size;
    let embeddings = "vision_model.embeddings";
    list.add(format!("{embeddings}.class_embedding"), &[width], Init::Constant(0.0));
    let patches = format!("{embeddings}.patch_embedding.weight");
    list.add(patches, &[width, 3, patch, patch], normal_for(3 * patch * patch));
    let positions = format!("{embeddings}.position_embedding.weight");
    // The class token stands at the first position.
    let shape = [config.vision.patches() + 1, width];
    list.add(positions, &shape, Init::NormalBelowFirstRow(0.1));
    // The name is misspelt in every published file.
    list.norm("vision_model.pre_layrnorm", width);
    list.tower("vision_model", &config.vision.tower);
    list.norm("vision_model.post_layernorm", width);
    list.add("visual_projection.weight", &[config.dimension, width], normal_for(width));
}

/// Keeps the sum of `inputs` products of independent numbers at the deviation of one of them.
fn normal_for(inputs: usize) -> Init {
    Init::Normal(1.0 / (inputs as f64).sqrt())
}
