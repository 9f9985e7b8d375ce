//! Names of DINOv2's parameters in Hugging Face's files, and in facebookresearch's.

use anyhow::{Context, Result, ensure};
use protoseg_models::weights::{StateDict, Tensor};

/// Mark of Hugging Face's names, behind any prefix such as `backbone.`.
const MARK: &str = "embeddings.cls_token";
/// Parts of a block: Hugging Face's name, facebookresearch's.
const PARTS: [(&str, &str); 8] = [
    ("norm1.", "norm1."),
    ("norm2.", "norm2."),
    ("attention.output.dense.", "attn.proj."),
    ("attention.o_proj.", "attn.proj."),
    ("layer_scale1.lambda1", "ls1.gamma"),
    ("layer_scale2.lambda1", "ls2.gamma"),
    ("mlp.fc1.", "mlp.fc1."),
    ("mlp.fc2.", "mlp.fc2."),
];
/// Parts that are joined to `attn.qkv`, in this order.
const MIXED: [[&str; 2]; 3] = [
    ["attention.attention.query.", "attention.q_proj."],
    ["attention.attention.key.", "attention.k_proj."],
    ["attention.attention.value.", "attention.v_proj."],
];

/// Renames the encoder of Hugging Face's files to facebookresearch's names; whatever else such a
/// file holds, as a decoder, is left out. Other files are returned as they are, without the mask
/// token, which is used in pretraining alone.
pub(super) fn rename(mut found: StateDict) -> Result<StateDict> {
    found.remove("mask_token");
    let prefix = found.keys().find_map(|name| name.strip_suffix(MARK).map(str::to_owned));
    let Some(prefix) = prefix else { return Ok(found) };
    let mut renamed = StateDict::new();
    let mut mixed: [StateDict; 3] = Default::default();
    for (name, tensor) in found {
        let Some(name) = name.strip_prefix(&prefix) else { continue };
        let Some((index, part)) =
            name.strip_prefix("encoder.layer.").and_then(|rest| rest.split_once('.'))
        else {
            if let Some(name) = outside(name) {
                renamed.insert(name, tensor);
            }
            continue;
        };
        let matrix = MIXED.iter().position(|names| names.iter().any(|name| part.starts_with(name)));
        if let Some(matrix) = matrix {
            let end = part.rsplit('.').next().unwrap_or(part);
            mixed[matrix].insert(format!("blocks.{index}.attn.qkv.{end}"), tensor);
            continue;
        }
        let known = PARTS.iter().find(|(theirs, _)| part.starts_with(theirs));
        let (theirs, ours) =
            known.with_context(|| format!("`{name}` is no parameter of DINOv2 that is known"))?;
        renamed.insert(format!("blocks.{index}.{ours}{}", &part[theirs.len()..]), tensor);
    }
    let [queries, keys, values] = mixed;
    for (name, mut tensor) in queries {
        for others in [&keys, &values] {
            let other = others.get(&name).with_context(|| format!("it lacks parts of `{name}`"))?;
            tensor = below(tensor, other).with_context(|| name.clone())?;
        }
        renamed.insert(name, tensor);
    }
    Ok(renamed)
}

/// Names of parameters outside the blocks.
fn outside(name: &str) -> Option<String> {
    Some(match name {
        "embeddings.cls_token" => "cls_token".to_owned(),
        "embeddings.register_tokens" => "register_tokens".to_owned(),
        "embeddings.position_embeddings" => "pos_embed".to_owned(),
        _ => {
            let (theirs, ours) = [
                ("embeddings.patch_embeddings.projection.", "patch_embed.proj."),
                ("layernorm.", "norm."),
            ]
            .into_iter()
            .find(|(theirs, _)| name.starts_with(theirs))?;
            format!("{ours}{}", &name[theirs.len()..])
        }
    })
}

/// Joins two tensors along their first dimension.
fn below(mut first: Tensor, second: &Tensor) -> Result<Tensor> {
    ensure!(
        first.shape.get(1..) == second.shape.get(1..) && !first.shape.is_empty(),
        "{:?} and {:?} cannot be joined",
        first.shape,
        second.shape
    );
    first.shape[0] += second.shape[0];
    first.data.extend(&second.data);
    Ok(first)
}

#[cfg(test)]
mod tests {
    use protoseg_models::arch::vit;
    use protoseg_models::formula;

    use super::*;

    /// The names that Hugging Face gives to a parameter, with the rows that belong to each.
    fn theirs(name: &str, modern: bool) -> Vec<String> {
        if let Some((block, end)) = name.split_once(".attn.qkv.") {
            let index = block.strip_prefix("blocks.").unwrap();
            let part = usize::from(modern);
            return MIXED
                .map(|names| format!("encoder.layer.{index}.{}{end}", names[part]))
                .to_vec();
        }
        let name = name
            .replace("cls_token", "embeddings.cls_token")
            .replace("pos_embed", "embeddings.position_embeddings")
            .replace("register_tokens", "embeddings.register_tokens")
            .replace("patch_embed.proj.", "embeddings.patch_embeddings.projection.")
            .replace(
                "attn.proj.",
                if modern { "attention.o_proj." } else { "attention.output.dense." },
            )
            .replace("ls1.gamma", "layer_scale1.lambda1")
            .replace("ls2.gamma", "layer_scale2.lambda1")
            .replace("blocks.", "encoder.layer.");
        vec![name.strip_prefix("norm.").map_or(name.clone(), |end| format!("layernorm.{end}"))]
    }

    #[test]
    fn names_of_hugging_face_become_those_of_facebookresearch() {
        let (graph, _) = vit::backbone(vit::SMALL, 4);
        let expected = formula::weights(&graph, None);
        for (prefix, modern) in [("", false), ("backbone.", false), ("dinov2.", true)] {
            let mut found = StateDict::new();
            for (name, tensor) in &expected {
                let names = theirs(name, modern);
                let rows = tensor.shape[0] / names.len();
                let size = tensor.data.len() / names.len();
                for (name, data) in names.iter().zip(tensor.data.chunks(size)) {
                    let shape = [&[rows], &tensor.shape[1..]].concat();
                    let part = Tensor { shape, data: data.to_vec() };
                    found.insert(format!("{prefix}{name}"), part);
                }
            }
            if !prefix.is_empty() {
                let head = Tensor { shape: vec![1], data: vec![0.0] };
                found.insert("decoder.bias".to_owned(), head);
            }
            assert!(rename(found).unwrap() == expected, "{prefix}");
        }
        let mut own = expected.clone();
        own.insert("mask_token".to_owned(), Tensor { shape: vec![1, 384], data: vec![0.0; 384] });
        assert!(rename(own).unwrap() == expected);
        let odd = |name: &str| {
            let token = Tensor { shape: vec![1], data: vec![0.0] };
            let names = [MARK, name].map(|name| (name.to_owned(), token.clone()));
            rename(names.into()).unwrap_err().to_string()
        };
        assert!(odd("encoder.layer.0.mlp.weights_in.bias").contains("`encoder.layer.0.mlp"));
        assert!(odd("encoder.layer.0.attention.q_proj.bias").contains("lacks parts"));
    }
}
