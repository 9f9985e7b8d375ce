//! Fuzzing: ten thousand mutated requests get their own answer, an error or none; never a 5xx, nor
//! another client's answer.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use protoseg_models::random::Stream;
use serde_json::{Value, json};

use super::oip::{binary, png};
use super::server::{Server, request, send, send_broken};
use crate::common::{stripe_labels, stripes};

const LENGTH: &str = "inference-header-content-length";

/// Of all threads together.
const REQUESTS: usize = 10_000;

/// A valid request, and the id that its response must repeat.
struct Valid {
    bytes: Vec<u8>,
    id: Option<String>,
}

/// A request of one of four kinds, with its own size and id.
fn valid(number: u64) -> Valid {
    let stream = Stream::keyed(&[1, number]);
    let image = stripes(16 + stream.below(0, 40) as u32, 8 + stream.below(1, 24) as u32);
    let id = format!("request {number}");
    let more = json!({ "id": id, "parameters": { "binary_data_output": stream.below(2, 2) == 0 } });
    let (path, headers, body) = match number % 4 {
        0 | 1 => {
            let (body, length) = binary(&image, &more);
            ("/v2/models/colors/infer", vec![(LENGTH, length.to_string())], body)
        }
        2 => {
            let (width, height) = image.dimensions();
            let input = json!({ "name": "image", "shape": [1, height, width, 3], "datatype": "UINT8",
                                "data": image.as_raw() });
            (
                "/v2/models/colors/infer",
                vec![],
                json!({ "id": id, "inputs": [input] }).to_string().into_bytes(),
            )
        }
        _ => ("/v1/segment?as=json", vec![], png(&image)),
    };
    let headers: Vec<(&str, &str)> =
        headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    Valid { bytes: request("POST", path, &headers, &body), id: (number % 4 != 3).then_some(id) }
}

/// Changes, cuts, repeats or moves some of the bytes.
fn mutated(number: u64, mut bytes: Vec<u8>) -> Vec<u8> {
    let stream = Stream::keyed(&[2, number]);
    let times = 1 + stream.below(0, 3);
    for time in 0..times {
        let draw =
            |place: u64, below: usize| stream.below(16 * time as u64 + place + 1, below.max(1));
        // Half of the mutations hit the head, which is short.
        let head = bytes.windows(4).position(|four| four == b"\r\n\r\n").unwrap_or(bytes.len());
        let place = draw(0, if draw(1, 2) == 0 { head } else { bytes.len() });
        match draw(2, 7) {
            0 | 1 => bytes[place] ^= 1 << draw(3, 8),
            2 => bytes[place] = draw(3, 256) as u8,
            3 => bytes.truncate(place.max(1)),
            4 => drop(bytes.drain(place..(place + 1 + draw(3, 40)).min(bytes.len()))),
            5 => {
                let end = (place + 1 + draw(3, 40)).min(bytes.len());
                let again = bytes[place..end].to_vec();
                bytes.splice(place..place, again);
            }
            _ => {
                let words: [&[u8]; 8] = [
                    b"-1",
                    b"99999999999999999999",
                    b"null",
                    b"[[[[",
                    b"\"",
                    b"\0",
                    b"1e999",
                    b"\r\n",
                ];
                bytes.splice(place..place, words[draw(3, 8)].iter().copied());
            }
        }
        if bytes.is_empty() {
            break;
        }
    }
    bytes
}

#[test]
fn mutated_requests_neither_fail_the_server_nor_mix_up_answers() {
    let server = Server::start(&["--body-timeout", "5", "--head-timeout", "5"]);
    let address = server.address;
    let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let counts: [AtomicUsize; 3] = Default::default();
    std::thread::scope(|scope| {
        // A client with valid requests at the same time.
        let witness = scope.spawn(|| {
            let mut asked = 0_u32;
            while !stop.load(Ordering::Relaxed) {
                let (width, height) = (16 + asked % 50, 9 + asked % 7);
                let (body, length) =
                    binary(&stripes(width, height), &json!({ "outputs": [{ "name": "labels" }] }));
                let headers = [(LENGTH, length.to_string())].map(|(name, value)| (name, value));
                let headers: Vec<(&str, &str)> =
                    headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
                let response =
                    send(address, &request("POST", "/v2/models/colors/infer", &headers, &body))
                        .unwrap();
                let found: Vec<u8> =
                    serde_json::from_value(response.unwrap().json()["outputs"][0]["data"].take())
                        .unwrap();
                assert_eq!(found, stripe_labels(width, height), "request {asked} of the witness");
                asked += 1;
            }
            asked
        });
        let clients: Vec<_> = (0..64)
            .map(|_| {
                scope.spawn(|| {
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= REQUESTS {
                            break;
                        }
                        let Valid { bytes, id } = valid(number as u64);
                        let sent = mutated(number as u64, bytes);
                        let response = send_broken(address, &sent).unwrap();
                        let kind = match &response {
                            None => 0,
                            Some(response) if response.status == 200 => 1,
                            Some(response) => {
                                let (status, text) = (response.status, response.text());
                                assert!((400..500).contains(&status), "{number}: {status} {text}");
                                2
                            }
                        };
                        counts[kind].fetch_add(1, Ordering::Relaxed);
                        let answer = response.filter(|response| response.status == 200);
                        let Some((answer, id)) = answer.zip(id) else { continue };
                        // Unless the mutation changed the id itself.
                        let sent_text = String::from_utf8_lossy(&sent).into_owned();
                        if sent_text.contains(&format!("\"id\":\"{id}\"")) {
                            let text = String::from_utf8_lossy(&answer.body);
                            assert!(text.contains(&format!("\"id\":\"{id}\"")), "{number}: {text}");
                        }
                    }
                })
            })
            .collect();
        let clients: Vec<_> =
            clients.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        stop.store(true, Ordering::Relaxed);
        assert!(witness.join().unwrap() > 100);
        clients.into_iter().for_each(|client| client.unwrap());
    });
    let [none, right, refused] = counts.map(AtomicUsize::into_inner);
    assert!(right > REQUESTS / 20 && refused > REQUESTS / 4, "{none} {right} {refused}");
    // The server is as before.
    let model: Value = server.get("/v2/models/colors").json();
    assert_eq!(model["name"], "colors");
    server.until("nothing is held", |server| {
        server.metric("protoseg_queue_pixels ") == 0.0
            && server.metric("protoseg_connections ") == 1.0
    });
}
