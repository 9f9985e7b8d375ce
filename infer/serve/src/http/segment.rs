//! Plain form: an image file in, and out comes the view that `?as=` or `Accept` names.

use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use protoseg_images::formats::{ImageLabels, coco};
use protoseg_images::label_map::LabelMap;
use protoseg_infer::upsample::into_vec;
use protoseg_infer::{Outputs, Stage};
use protoseg_models::classes::ClassTable;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::PathParams;
use crate::body::{PermitBody, receive};
use crate::error::bad_request;
use crate::middleware::{RequestRecord, add_timing_headers};
use crate::registry::LoadedModel;
use crate::{AppState, LabeledImage, ServiceError};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum View {
    /// Classes and their shares.
    Json,
    /// Train ids as gray PNG.
    Labels,
    /// Train ids as palette PNG in the colors of the classes.
    Color,
    /// Class colors over the image as PNG.
    Overlay,
    /// COCO masks of the classes.
    Coco,
}

impl View {
    const ALL: [Self; 5] = [Self::Json, Self::Labels, Self::Color, Self::Overlay, Self::Coco];

    fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Labels => "image/png",
            Self::Color => "image/png;view=color",
            Self::Overlay => "image/png;view=overlay",
            Self::Coco => "application/json;view=coco",
        }
    }

    /// Returns the first of the views that `Accept` prefers; JSON where it takes anything.
    fn from_accept(accept: &str) -> Option<Self> {
        let range = |range: &str| {
            let range = range.to_ascii_lowercase();
            let (quality, words): (Vec<&str>, Vec<&str>) =
                range.split(';').map(str::trim).partition(|word| word.starts_with("q="));
            let quality = quality.first().map_or(1.0, |word| word[2..].parse().unwrap_or(1.0));
            let view = match words.join(";").as_str() {
                "" | "*/*" | "application/*" => Some(Self::Json),
                "image/*" => Some(Self::Labels),
                media_type => Self::ALL.into_iter().find(|view| view.media_type() == media_type),
            };
            view.filter(|_| quality > 0.0).map(|view| (view, quality))
        };
        let mut views: Vec<(Self, f64)> = accept.split(',').filter_map(range).collect();
        views.sort_by(|one, other| other.1.total_cmp(&one.1));
        views.first().map(|(view, _)| *view)
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct SegmentQuery {
    #[serde(rename = "as")]
    view: Option<View>,
}

type QueryResult = Result<Query<SegmentQuery>, QueryRejection>;

/// The models with their classes and colors, and the limits of a request.
pub(super) async fn models(State(state): State<AppState>) -> Response {
    let registry = &state.service.models;
    let mut models = Vec::new();
    for status in registry.list() {
        let mut classes = Vec::new();
        if let Ok(model) = registry.get(&status.name, None) {
            for (id, class) in model.model.classes.classes().iter().enumerate() {
                classes.push(json!({ "id": id, "name": class.name, "color": class.color }));
            }
        }
        models.push(json!({
            "name": status.name,
            "version": status.version,
            "state": status.state,
            "classes": classes,
        }));
    }
    let limits = state.service.limits;
    Json(json!({
        "models": models,
        "max_pixels": limits.image_pixels,
        "max_bytes": limits.body_bytes,
    }))
    .into_response()
}

pub(super) async fn segment(
    State(state): State<AppState>,
    Extension(record): Extension<RequestRecord>,
    query: QueryResult,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ServiceError> {
    let model = state.service.models.first()?;
    respond(&state, &model, &record, query, &headers, body).await
}

pub(super) async fn segment_with_model(
    State(state): State<AppState>,
    PathParams(name): PathParams<String>,
    Extension(record): Extension<RequestRecord>,
    query: QueryResult,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ServiceError> {
    let model = state.service.models.get(&name, None)?;
    respond(&state, &model, &record, query, &headers, body).await
}

async fn respond(
    state: &AppState,
    model: &Arc<LoadedModel>,
    record: &RequestRecord,
    query: QueryResult,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, ServiceError> {
    record.set_model(&model.name);
    let view = view(query, headers)?;
    let service = &state.service;
    let body = receive(service, headers, body).await?;
    model.metrics.record_stage(Stage::Read, body.elapsed);
    if body.bytes.is_empty() {
        return Err(bad_request(
            "the body is empty; send an image, as `curl --data-binary @photo.jpg` does",
        ));
    }
    let admitted = service.decode(model, body.bytes).await?;
    drop(body.permit);
    let confidence = matches!(view, View::Json | View::Coco);
    let outputs = Outputs { confidence, ..Outputs::default() };
    let labeled = service.label(model, admitted, outputs).await?;
    let start = Instant::now();
    let encoding = Arc::clone(model);
    let response = service.run_blocking(move || encode(&encoding, view, labeled)).await?;
    model.metrics.record_stage(Stage::Encode, start.elapsed());
    Ok(response)
}

fn view(query: QueryResult, headers: &HeaderMap) -> Result<View, ServiceError> {
    let Query(query) = query.map_err(|_| {
        bad_request(
            "`as` is one of json, labels, color, overlay, coco, and there is no other parameter",
        )
    })?;
    if let Some(view) = query.view {
        return Ok(view);
    }
    let accept = headers.get(header::ACCEPT).map_or(Ok("*/*"), HeaderValue::to_str);
    View::from_accept(accept.unwrap_or_default()).ok_or_else(|| {
        let known = View::ALL.map(View::media_type).join(" or ");
        bad_request(format!("no media type of `Accept` can be given; ask for {known}"))
    })
}

fn encode(
    model: &LoadedModel,
    view: View,
    labeled: LabeledImage,
) -> Result<Response, ServiceError> {
    let failed = |error: &dyn std::fmt::Display| {
        ServiceError::Internal(format!("cannot encode the response: {error}"))
    };
    let classes = &model.model.classes;
    let LabeledImage { image, response, permit } = labeled;
    let times = response.times;
    let mut prediction = response.prediction;
    let pixels = prediction.pixels_by_class(classes.count());
    let confidence = prediction.confidence.take().map(into_vec);
    let map = LabelMap::from(prediction);
    let bytes = match view {
        View::Labels => map.train_ids_png(classes).map_err(|error| failed(&error))?,
        View::Color => map.color_png(classes).map_err(|error| failed(&error))?,
        View::Overlay => map.overlay_png(&image, classes, false).map_err(|error| failed(&error))?,
        View::Coco => {
            let labels = ImageLabels { name: "picture".into(), map, confidence };
            let mut bytes = Vec::new();
            coco::write(&mut bytes, [Ok(labels)], classes, &Default::default())
                .map_err(|error| failed(&error))?;
            bytes
        }
        View::Json => json!({
            "model": model.name,
            "version": model.version,
            "width": map.width,
            "height": map.height,
            "classes": summarize(&map, confidence.as_deref(), classes, &pixels),
        })
        .to_string()
        .into_bytes(),
    };
    let media_type = HeaderValue::from_static(view.media_type());
    let body = PermitBody::from_bytes(bytes, vec![permit]);
    let mut response = ([(header::CONTENT_TYPE, media_type)], body).into_response();
    let headers = response.headers_mut();
    headers.insert(header::VARY, HeaderValue::from_static("accept"));
    add_timing_headers(headers, times);
    Ok(response)
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

/// Returns the classes of an image, those with the most pixels first.
fn summarize<'a>(
    map: &LabelMap,
    confidence: Option<&[u8]>,
    classes: &'a ClassTable,
    pixels: &[u64],
) -> Vec<ClassSummary<'a>> {
    let mut confidence_sums = vec![0_u64; classes.count()];
    for (&label, &byte) in map.labels.iter().zip(confidence.unwrap_or_default()) {
        if let Some(sum) = confidence_sums.get_mut(usize::from(label)) {
            *sum += u64::from(byte);
        }
    }
    let all = map.labels.len().max(1) as f64;
    let mut summary = Vec::new();
    for (id, class) in classes.classes().iter().enumerate().filter(|(id, _)| pixels[*id] > 0) {
        let mean = confidence_sums[id] as f64 / 255.0 / pixels[id] as f64;
        summary.push(ClassSummary {
            id,
            name: &class.name,
            color: class.color,
            pixels: pixels[id],
            share: pixels[id] as f64 / all,
            confidence: confidence.map(|_| mean),
        });
    }
    summary.sort_by_key(|class| std::cmp::Reverse(class.pixels));
    summary
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_preferred_view_is_chosen() {
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
            assert_eq!(View::from_accept(accept), view, "{accept}");
        }
    }
}
