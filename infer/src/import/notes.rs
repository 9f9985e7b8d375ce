//! Notes that exporters leave in an ONNX file.

use prost::Message;

/// The part of `ModelProto` with notes; everything else is skipped.
#[derive(Clone, PartialEq, Message)]
struct NotedModel {
    #[prost(message, repeated, tag = "14")]
    notes: Vec<NoteEntry>,
}

#[derive(Clone, PartialEq, Message)]
struct NoteEntry {
    #[prost(string, optional, tag = "1")]
    key: Option<String>,
    #[prost(string, optional, tag = "2")]
    value: Option<String>,
}

/// Returns the task of a network that YOLO exported, such as `segment`; None for those of others.
pub(super) fn yolo_task(bytes: &[u8]) -> Option<String> {
    let model = NotedModel::decode(bytes).ok()?;
    let value = |key: &str| {
        let note = model.notes.iter().find(|note| note.key.as_deref() == Some(key))?;
        note.value.clone()
    };
    // Others have tasks too.
    let is_yolo = value("names").is_some() && value("stride").is_some();
    value("task").filter(|_| is_yolo)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_task_is_that_of_yolo_alone() {
        let encoded = |notes: &[(&str, &str)]| {
            let text = |text: &str| Some(text.to_owned());
            let notes =
                notes.iter().map(|(key, value)| NoteEntry { key: text(key), value: text(value) });
            NotedModel { notes: notes.collect() }.encode_to_vec()
        };
        let yolo = [("names", "{0: 'a'}"), ("stride", "32"), ("task", "segment")];
        assert_eq!(yolo_task(&encoded(&yolo)).as_deref(), Some("segment"));
        assert_eq!(yolo_task(&encoded(&yolo[1..])), None);
        assert_eq!(yolo_task(&encoded(&yolo[..2])), None);
        assert_eq!(yolo_task(b"no protobuf"), None);
    }
}
