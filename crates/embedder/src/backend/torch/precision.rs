//! Chooses the type to compute in, by what it costs in fidelity on the model at hand.
//!
//! Which half is better depends on the weights: `f16` has three more bits of precision, `bf16` the
//! range of `f32`. So both are tried against `f32` on a few pictures and texts, once, at start.

use super::{Towers, rows};
use crate::backend::{Device, DtypeChoice, Error, Output};
use crate::model::{Dtype, Model, Network, Tokens};

/// Lowest cosine to the vectors in single precision that is served. Nearest neighbours of real
/// pictures differ by more than the 0.001 that this leaves.
const FAITHFUL: f32 = 0.999;

/// What is tried: pictures of noise and of slopes, and texts of several lengths.
const PICTURES: u32 = 4;
const TEXTS: [&str; 3] = [
    "a photo of a cat",
    "two red bicycles lean on a wall of white bricks in the evening sun",
    "fog",
];

/// Loads the towers in the type that was asked for, or the best that the device has.
pub(super) fn choose(model: &Model, device: Device, choice: DtypeChoice) -> Result<Towers, Error> {
    if let Network::Script(_) = model.network {
        // What it was traced with may be written into it.
        return match choice {
            DtypeChoice::Auto | DtypeChoice::F32 => Towers::load(model, device, Dtype::F32),
            DtypeChoice::F16 => Err(Error::HalfScript(Dtype::F16)),
            DtypeChoice::Bf16 => Err(Error::HalfScript(Dtype::Bf16)),
        };
    }
    let candidates: &[Dtype] = match (choice, device) {
        (DtypeChoice::Auto, Device::Cuda { .. }) => &[Dtype::F16, Dtype::Bf16],
        (DtypeChoice::Auto, Device::Cpu) | (DtypeChoice::F32, _) => &[],
        (DtypeChoice::F16, _) => &[Dtype::F16],
        (DtypeChoice::Bf16, _) => &[Dtype::Bf16],
    };
    if let (Device::Cpu, Some(&half)) = (device, candidates.first())
        && !(half == Dtype::Bf16 && cpu_has_bf16())
    {
        return Err(Error::HalfOnCpu(half));
    }
    let exact = Towers::load(model, device, Dtype::F32)?;
    let probes = Probes::of(model)?;
    let Some((half, cosine)) =
        best(&exact, &probes, candidates, |dtype| Towers::load(model, device, dtype))?
    else {
        return Ok(exact);
    };
    let dtype = half.dtype;
    tracing::info!(dtype = dtype.as_str(), cosine, "vectors compared with those in f32");
    match choice {
        _ if cosine >= FAITHFUL => Ok(half),
        DtypeChoice::Auto => {
            tracing::warn!(cosine, least = FAITHFUL, "this model is not computed in a half: f32");
            Ok(exact)
        }
        DtypeChoice::F32 | DtypeChoice::F16 | DtypeChoice::Bf16 => {
            Err(Error::Unfaithful { dtype, cosine, least: FAITHFUL })
        }
    }
}

/// The candidate that comes closest to the exact vectors, and its lowest cosine to them.
fn best(
    exact: &Towers,
    probes: &Probes,
    candidates: &[Dtype],
    load: impl Fn(Dtype) -> Result<Towers, Error>,
) -> Result<Option<(Towers, f32)>, Error> {
    if candidates.is_empty() {
        return Ok(None);
    }
    let expected = probes.vectors(exact)?;
    let mut best: Option<(Towers, f32)> = None;
    for &dtype in candidates {
        let towers = load(dtype)?;
        let cosine = lowest_cosine(&expected, &probes.vectors(&towers)?);
        if best.as_ref().is_none_or(|(_, highest)| cosine > *highest) {
            best = Some((towers, cosine));
        }
    }
    Ok(best)
}

/// What is computed in both types.
struct Probes {
    pictures: Vec<Vec<u8>>,
    texts: Vec<Tokens>,
}

impl Probes {
    fn of(model: &Model) -> Result<Self, Error> {
        let edge = model.image_size();
        let pictures = (0..PICTURES).map(|seed| picture(edge, seed)).collect();
        let texts = TEXTS.iter().filter(|_| model.takes_texts()).map(|text| model.encode(text));
        let texts =
            texts.collect::<Result<_, _>>().map_err(|error| Error::Load(error.to_string()))?;
        Ok(Self { pictures, texts })
    }

    fn vectors(&self, towers: &Towers) -> Result<Output, Error> {
        let fault = |error| super::error(&error);
        let seen = towers.see(&towers.levels(&self.pictures)?)?;
        let mut vectors = rows(&seen, self.pictures.len() as i64).map_err(fault)?;
        for text in &self.texts {
            let read = towers.read(std::slice::from_ref(text))?;
            vectors.extend(rows(&read, 1).map_err(fault)?);
        }
        Ok(vectors)
    }
}

/// A picture with slopes and, the more of it the higher the seed, noise.
fn picture(edge: usize, seed: u32) -> Vec<u8> {
    let mut state = seed;
    let pixel = |i: usize| [i % edge * 255 / edge, i / edge * 255 / edge, 128].map(|x| x as u8);
    let levels = (0..edge * edge).flat_map(pixel);
    let mut noise = || {
        // Constants of Numerical Recipes; any noise does.
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    levels.map(|level| if noise() < (seed * 60) as u8 { noise() } else { level }).collect()
}

/// Of vectors of length 1. Values that are no numbers count as -1.
fn lowest_cosine(expected: &Output, actual: &Output) -> f32 {
    let dot = |(a, b): (&Vec<f32>, &Vec<f32>)| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    let cosines = expected.iter().zip(actual).map(dot);
    cosines.map(|cosine| if cosine.is_finite() { cosine } else { -1.0 }).fold(1.0, f32::min)
}

/// Whether this CPU has instructions for `bf16`; libtorch computes without them, too, but slower
/// than in `f32`.
fn cpu_has_bf16() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::is_x86_feature_detected!("avx512bf16");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("bf16");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    return false;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::random::{self, Architecture};

    fn model() -> (tempfile::TempDir, Model) {
        let folder = tempfile::tempdir().expect("a folder");
        let config = Architecture::Tiny.config();
        random::write(folder.path(), &config, 1, Dtype::F32).expect("a random model");
        let model = Model::open(folder.path()).expect("what is written can be read");
        (folder, model)
    }

    #[test]
    fn the_half_that_comes_closest_is_chosen() {
        let (_folder, model) = model();
        let load = |dtype| Towers::load(&model, Device::Cpu, dtype);
        let exact = load(Dtype::F32).expect("it loads");
        let probes = Probes::of(&model).expect("a text model");
        let best = best(&exact, &probes, &[Dtype::Bf16, Dtype::F16], load).expect("both compute");
        let (half, cosine) = best.expect("one of the two");
        // Small weights and activations: `f16` has the bits that they need.
        assert_eq!(half.dtype, Dtype::F16, "the more precise one");
        assert!(
            (FAITHFUL..1.0).contains(&cosine),
            "close to `f32`, and not `f32` itself: {cosine}"
        );
    }

    #[test]
    fn vectors_of_no_numbers_are_as_far_off_as_can_be() {
        let expected = vec![vec![0.6, 0.8], vec![1.0, 0.0]];
        assert!(lowest_cosine(&expected, &expected) > 0.999_999, "the same");
        let turned = vec![vec![0.6, 0.8], vec![0.0, 1.0]];
        assert_eq!(lowest_cosine(&expected, &turned), 0.0, "the worst one counts");
        let broken = vec![vec![0.6, 0.8], vec![f32::NAN, 0.0]];
        assert_eq!(lowest_cosine(&expected, &broken), -1.0, "never chosen");
    }

    #[test]
    fn a_cpu_refuses_what_it_would_only_be_slower_with() {
        let (_folder, model) = model();
        let refused = choose(&model, Device::Cpu, DtypeChoice::F16).map(|towers| towers.dtype);
        assert!(matches!(refused, Err(Error::HalfOnCpu(Dtype::F16))), "no CPU does: {refused:?}");
        let chosen = choose(&model, Device::Cpu, DtypeChoice::Bf16).map(|towers| towers.dtype);
        match chosen {
            Ok(dtype) => assert!(cpu_has_bf16() && dtype == Dtype::Bf16, "it has instructions"),
            Err(error) => {
                assert!(!cpu_has_bf16() && matches!(error, Error::HalfOnCpu(_)), "{error}");
            }
        }
    }
}
