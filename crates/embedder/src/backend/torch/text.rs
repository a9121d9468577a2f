//! The tower that reads texts: a transformer over tokens. In CLIP a token sees those before it; in
//! SigLIP, all of them, and all texts are padded to one length.

use tch::{Device, Kind, TchError, Tensor};

use super::layers::{Encoder, LayerNorm, Linear, Loader};
use crate::model::names::{TEXT_LAYERS, text_projection};
use crate::model::{Family, Model, Network, Text, Tokenizer, Tokens};

/// From tokens to vectors.
#[derive(Debug)]
pub(super) struct Tower {
    tokens: Tensor,
    positions: Tensor,
    encoder: Encoder,
    output_norm: LayerNorm,
    projection: Linear,
    padding_id: u32,
    device: Device,
}

impl Tower {
    /// `None` for a model that takes pictures only.
    pub(super) fn of(model: &Model, device: Device, kind: Kind) -> Result<Option<Self>, TchError> {
        let (Network::Towers { config, weights }, Some(tokenizer)) =
            (&model.network, &model.tokenizer)
        else {
            return Ok(None);
        };
        let Some(text) = &config.text else { return Ok(None) };
        let loader = Loader::new(weights, device, kind);
        Self::load(&loader, config.family, text, tokenizer).map(Some)
    }

    fn load(
        loader: &Loader<'_>,
        family: Family,
        text: &Text,
        tokenizer: &Tokenizer,
    ) -> Result<Self, TchError> {
        let embeddings = "text_model.embeddings";
        let projection = text_projection(family);
        Ok(Self {
            tokens: loader.tensor(&format!("{embeddings}.token_embedding.weight"))?,
            positions: loader.tensor(&format!("{embeddings}.position_embedding.weight"))?,
            encoder: loader.encoder(&TEXT_LAYERS, &text.tower, family == Family::Clip)?,
            output_norm: loader.norm("text_model.final_layer_norm", &text.tower)?,
            projection: match projection.has_bias {
                true => loader.linear(projection.name)?,
                false => loader.projection(projection.name)?,
            },
            padding_id: tokenizer.padding_id(),
            device: loader.device,
        })
    }

    /// From texts to [batch, dimension]. Shorter texts are padded at the end, where no position
    /// that counts can see: causal attention needs no mask for them. Where attention is not causal,
    /// no text is shorter.
    pub(super) fn forward(&self, texts: &[Tokens]) -> Result<Tensor, TchError> {
        let length = texts.iter().map(|text| text.ids.len()).max().unwrap_or(0);
        let padding = std::iter::repeat(i64::from(self.padding_id));
        let padded = texts.iter().flat_map(|text| {
            text.ids.iter().map(|&id| i64::from(id)).chain(padding.clone()).take(length)
        });
        let ids: Vec<i64> = padded.collect();
        let (batch, length) = (texts.len() as i64, length as i64);
        let ids = Tensor::f_from_slice(&ids)?.f_view([batch, length])?.f_to_device(self.device)?;
        let embedded = Tensor::f_embedding(&self.tokens, &ids, -1, false, false)?;
        let states = embedded.f_add(&self.positions.f_narrow(0, 0, length)?)?;
        let states = self.encoder.forward(states)?;

        let rows = (0..).zip(texts).map(|(row, text)| row * length + text.pool_at as i64);
        let rows = Tensor::f_from_slice(&rows.collect::<Vec<i64>>())?.f_to_device(self.device)?;
        let pooled = states.f_flatten(0, 1)?.f_index_select(0, &rows)?;
        self.projection.forward(&self.output_norm.forward(&pooled)?)
    }
}
