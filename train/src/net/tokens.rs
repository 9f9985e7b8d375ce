//! Tokens of vision transformers.

use anyhow::Result;
use tch::Tensor;

/// Turns patches `[N, C, h, w]` into tokens `[N, 1 + R + h w, C]`: the class token, registers, and
/// the patches with their positions, which are interpolated bicubically from a square grid.
pub(super) fn embed(
    patches: &Tensor,
    class_token: &Tensor,
    registers: Option<&Tensor>,
    positions: &Tensor,
    grid: usize,
) -> Result<Tensor> {
    let size = patches.size();
    let [batch, channels, height, width] = [size[0], size[1], size[2], size[3]];
    let side = grid as i64;
    let table = positions.f_narrow(1, 1, side * side)?;
    let table = if [height, width] == [side, side] {
        table
    } else {
        let map = table.f_reshape([1, side, side, channels])?.f_permute([0, 3, 1, 2])?;
        let map = map.f_upsample_bicubic2d([height, width], false, None, None)?;
        map.f_flatten(2, 3)?.f_transpose(1, 2)?
    };
    let tokens = patches.f_flatten(2, 3)?.f_transpose(1, 2)?.f_add(&table)?;
    let class_token = class_token.f_add(&positions.f_narrow(1, 0, 1)?)?;
    let each = |token: &Tensor| token.f_expand([batch, -1, -1], false);
    let mut parts = vec![each(&class_token)?];
    if let Some(registers) = registers {
        parts.push(each(registers)?);
    }
    parts.push(tokens);
    Ok(Tensor::f_cat(&parts, 1)?)
}

/// Multi-head self-attention of queries, keys and values `[N, T, 3 C]`: `[N, T, C]`.
pub(super) fn attend(mixed: &Tensor, heads: usize) -> Result<Tensor> {
    let size = mixed.size();
    let [batch, tokens, channels] = [size[0], size[1], size[2] / 3];
    let heads = heads as i64;
    let parts = mixed.f_reshape([batch, tokens, 3, heads, channels / heads])?;
    let parts = parts.f_permute([2, 0, 3, 1, 4])?;
    let [query, key, value] = [0, 1, 2].map(|part| parts.f_select(0, part));
    let attended = Tensor::f_scaled_dot_product_attention(
        &query?,
        &key?,
        &value?,
        None::<&Tensor>,
        0.0,
        false,
        None,
        false,
    )?;
    Ok(attended.f_transpose(1, 2)?.f_reshape([batch, tokens, channels])?)
}

/// Returns the tokens of positions as a map with the batch, height and width of `size`.
pub(super) fn map(tokens: &Tensor, size: &[i64], skip: usize) -> Result<Tensor> {
    let skip = skip as i64;
    let positions = tokens.f_narrow(1, skip, tokens.size()[1] - skip)?;
    let map = positions.f_reshape([size[0], size[2], size[3], -1])?;
    Ok(map.f_permute([0, 3, 1, 2])?)
}
