//! The plain form: a picture file in, and out comes what `Accept` or `?as=` names.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use protoseg_models::classes::Class;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::AppState;
use super::body::{PermitBody, receive};
use super::guard::ModelName;
use super::oip::add_timing_headers;
use super::path::PathParams;
use crate::registry::LoadedModel;
use crate::{LabeledImage, ServiceError};
use protoseg_images::formats::{ImageLabels, coco};
use protoseg_images::label_map::LabelMap;
use protoseg_infer::upsample::into_vec;
use protoseg_infer::{Outputs, Stage};

/// What a picture is answered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum View {
    /// Classes and their shares, as JSON.
    Json,
    /// Train ids, as grey PNG.
    Labels,
    /// Train ids in the colours of the classes, as palette PNG.
    Color,
    /// The colours over the picture, as PNG.
    Overlay,
    /// Masks of the classes as COCO has them, as JSON.
    Coco,
}

impl View {
    /// The media type of the answer, by which `Accept` can ask for it.
    fn media(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Labels => "image/png",
            Self::Color => "image/png;view=color",
            Self::Overlay => "image/png;view=overlay",
            Self::Coco => "application/json;view=coco",
        }
    }

    /// The one that `Accept` likes best; JSON where it takes anything.
    fn accepted(accept: &str) -> Option<Self> {
        let range = |range: &str| {
            let range = range.to_ascii_lowercase();
            let (quality, words): (Vec<&str>, Vec<&str>) =
                range.split(';').map(str::trim).partition(|word| word.starts_with("q="));
            let quality = quality.first().map_or(1.0, |word| word[2..].parse().unwrap_or(1.0));
            let view = match words.join(";").as_str() {
                "" | "*/*" | "application/*" => Some(Self::Json),
                "image/*" => Some(Self::Labels),
                media => Self::ALL.into_iter().find(|view| view.media() == media),
            };
            view.filter(|_| quality > 0.0).map(|view| (view, quality))
        };
        let mut known: Vec<(Self, f64)> = accept.split(',').filter_map(range).collect();
        // Of those that are liked alike, the first.
        known.sort_by(|one, other| other.1.total_cmp(&one.1));
        known.first().map(|(view, _)| *view)
    }

    const ALL: [Self; 5] = [Self::Json, Self::Labels, Self::Color, Self::Overlay, Self::Coco];
}

#[derive(Debug, Deserialize)]
pub(super) struct SegmentQuery {
    #[serde(rename = "as")]
    view: Option<View>,
}

/// The models, their classes and colours.
pub(super) async fn models(State(front): State<AppState>) -> Response {
    let models: Vec<_> = front
        .service
        .models
        .list()
        .into_iter()
        .map(|listed| {
            let classes = front.service.models.get(&listed.name, None).ok();
            let classes = classes.map(|served| served.model.classes.classes().to_vec()).unwrap_or_default();
            let class = |(id, class): (usize, Class)| json!({ "id": id, "name": class.name, "color": class.color });
            let classes: Vec<_> = classes.into_iter().enumerate().map(class).collect();
            json!({ "name": listed.name, "version": listed.version, "state": listed.state, "classes": classes })
        })
        .collect();
    let limit = front.service.limits;
    Json(json!({ "models": models, "max_pixels": limit.image_pixels, "max_bytes": limit.body_bytes })).into_response()
}

type Question = Result<Query<SegmentQuery>, QueryRejection>;

/// A picture for the first model.
pub(super) async fn segment(
    State(front): State<AppState>,
    asked: Question,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ServiceError> {
    let served = front.service.models.first()?;
    Ok(segment_with(&front, &served, asked, &headers, body).await)
}

/// A picture for the model that the address names.
pub(super) async fn segment_named(
    State(front): State<AppState>,
    PathParams(model): PathParams<String>,
    asked: Question,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ServiceError> {
    let served = front.service.models.get(&model, None)?;
    Ok(segment_with(&front, &served, asked, &headers, body).await)
}

async fn segment_with(
    front: &AppState,
    served: &Arc<LoadedModel>,
    asked: Question,
    headers: &HeaderMap,
    body: Body,
) -> Response {
    let answered = async {
        let Query(asked) = asked.map_err(|_| {
            ServiceError::bad_request(
                "`as` is one of json, labels, color, overlay, coco, and nothing else is asked here",
            )
        })?;
        let accept = headers.get(header::ACCEPT).map_or(Ok("*/*"), HeaderValue::to_str);
        let view =
            asked.view.or_else(|| View::accepted(accept.unwrap_or_default())).ok_or_else(|| {
                let known = View::ALL.map(View::media).join(" or ");
                ServiceError::bad_request(format!(
                    "nothing that `Accept` names can be given; ask for {known}"
                ))
            })?;
        let service = &front.service;
        let received = receive(service, headers, body).await?;
        served.metrics.record_stage(Stage::Read, received.took);
        if received.bytes.is_empty() {
            return Err(ServiceError::bad_request(
                "the body is empty; send a picture, as `curl --data-binary @photo.jpg` does",
            ));
        }
        let admitted = service.decode(served, received.bytes).await?;
        drop(received.share);
        let wanted =
            Outputs { confidence: matches!(view, View::Json | View::Coco), ..Outputs::default() };
        let labelled = service.label(served, admitted, wanted).await?;
        let start = std::time::Instant::now();
        let owned = Arc::clone(served);
        let response = service.work(move || drawn(&owned, view, labelled)).await?;
        served.metrics.record_stage(Stage::Encode, start.elapsed());
        Ok(response)
    };
    let mut response = answered.await.unwrap_or_else(ServiceError::into_response);
    response.extensions_mut().insert(ModelName(served.name.clone()));
    response
}

#[derive(Serialize)]
struct ClassSummary<'a> {
    id: usize,
    name: &'a str,
    color: [u8; 3],
    pixels: u64,
    share: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    confidence: Option<f64>,
}

fn drawn(
    served: &LoadedModel,
    view: View,
    labelled: LabeledImage,
) -> Result<Response, ServiceError> {
    let failed = |error: &dyn std::fmt::Display| {
        ServiceError::Internal(format!("the answer cannot be written: {error}"))
    };
    let classes = &served.model.classes;
    let (picture, made, share) = labelled.into_parts();
    let decided = made.prediction;
    let (pixels, confidence) =
        (decided.pixels_by_class(classes.count()), decided.confidence.clone().map(into_vec));
    let map = LabelMap::from(decided);
    let png = |bytes: Result<Vec<u8>, protoseg_images::label_map::LabelMapError>| {
        bytes.map_err(|error| failed(&error))
    };
    let bytes = match view {
        View::Labels => png(map.ids_png())?,
        View::Color => png(map.color_png(classes))?,
        View::Overlay => png(map.overlay_png(&picture, classes))?,
        View::Coco => {
            let labels = ImageLabels { name: "picture".into(), map, confidence };
            let mut bytes = Vec::new();
            coco::write(&mut bytes, [Ok(labels)], classes).map_err(|error| failed(&error))?;
            bytes
        }
        View::Json => {
            let all = map.labels.len().max(1) as f64;
            let mut sums = vec![0_u64; classes.count()];
            for (&label, &byte) in map.labels.iter().zip(confidence.iter().flatten()) {
                if let Some(sum) = sums.get_mut(usize::from(label)) {
                    *sum += u64::from(byte);
                }
            }
            let sure = confidence.is_some();
            let found = |(id, (class, (&pixels, sum)))| {
                let Class { name, color, .. }: &Class = class;
                let confidence = sure.then(|| sum as f64 / 255.0 / pixels as f64);
                ClassSummary {
                    id,
                    name,
                    color: *color,
                    pixels,
                    share: pixels as f64 / all,
                    confidence,
                }
            };
            let each = classes.classes().iter().zip(pixels.iter().zip(sums)).enumerate();
            let mut found: Vec<ClassSummary<'_>> =
                each.filter(|(_, (_, (pixels, _)))| **pixels > 0).map(found).collect();
            found.sort_by_key(|found| std::cmp::Reverse(found.pixels));
            let answer = json!({
                "model": served.name,
                "version": served.version,
                "width": map.width,
                "height": map.height,
                "classes": found,
            });
            answer.to_string().into_bytes()
        }
    };
    let kind = HeaderValue::from_static(view.media());
    let mut response =
        ([(header::CONTENT_TYPE, kind)], PermitBody::answer(bytes, vec![share])).into_response();
    let headers = response.headers_mut();
    headers.insert(header::VARY, HeaderValue::from_static("accept"));
    add_timing_headers(headers, made.times);
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kind_that_is_liked_best_is_given() {
        for (accept, view) in [
            ("*/*", Some(View::Json)),
            ("", Some(View::Json)),
            ("image/png", Some(View::Labels)),
            ("image/png; view=overlay; q=0.9", Some(View::Overlay)),
            ("image/avif,image/webp,image/*;q=0.8,*/*;q=0.5", Some(View::Labels)),
            ("text/html, application/json;view=coco", Some(View::Coco)),
            ("image/png;q=0.5, application/json;q=0.9", Some(View::Json)),
            ("image/png;q=0, application/json;view=coco;q=0.1", Some(View::Coco)),
            ("*/*;q=0", None),
            ("text/html", None),
        ] {
            assert_eq!(View::accepted(accept), view, "{accept}");
        }
    }
}
