//! Room for pictures that are on their way, counted in pixels: as many small ones as there are threads for, or few large
//! ones.

use std::sync::{Condvar, Mutex, PoisonError};

use protoseg_images::image_file::MAX_PIXELS;

/// Bytes that a pixel takes on its way: three of the picture and up to three of what is decided; at its end also the files
/// that are made of these.
const BYTES_A_PIXEL: u64 = 8;

/// Share of the available memory that is for pictures: up to a half is for sessions, and the rest for what runs need.
const SHARE: u64 = 4;

/// Pixels that may be on their way in so much memory; where it is not known, those of the largest picture that is read.
pub(super) fn most(available: Option<u64>) -> u64 {
    available.map_or(MAX_PIXELS, |bytes| bytes / SHARE / BYTES_A_PIXEL)
}

/// The room of a run.
#[derive(Debug)]
pub(super) struct PixelBudget {
    most: u64,
    held: Mutex<u64>,
    left: Condvar,
    /// Held by whoever waits first, so that a large picture is not passed by small ones for ever.
    door: Mutex<()>,
}

/// The pixels of a picture, for which room is held until this is dropped.
#[derive(Debug)]
pub(super) struct PixelPermit<'a> {
    room: &'a PixelBudget,
    pixels: u64,
}

impl PixelBudget {
    pub(super) fn new(most: u64) -> Self {
        Self { most, held: Mutex::new(0), left: Condvar::new(), door: Mutex::new(()) }
    }

    /// Waits until there is room for so many pixels. Where nothing else is held, there is room for any picture.
    pub(super) fn enter(&self, pixels: u64) -> PixelPermit<'_> {
        let _first = self.door.lock().unwrap_or_else(PoisonError::into_inner);
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        while *held > 0 && held.saturating_add(pixels) > self.most {
            held = self.left.wait(held).unwrap_or_else(PoisonError::into_inner);
        }
        *held = held.saturating_add(pixels);
        PixelPermit { room: self, pixels }
    }
}

impl Drop for PixelPermit<'_> {
    fn drop(&mut self) {
        let mut held = self.room.held.lock().unwrap_or_else(PoisonError::into_inner);
        *held = held.saturating_sub(self.pixels);
        self.room.left.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use super::*;

    #[test]
    fn pixels_held_stay_below_the_most_but_for_one_picture() {
        let (room, held) = (PixelBudget::new(100), AtomicU64::new(0));
        let peak = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let (room, held, peak) = (&room, &held, &peak);
                scope.spawn(move || {
                    for round in 0..100_u64 {
                        let pixels = [7, 40, 0, 100, 250][((thread + round) % 5) as usize];
                        let _held = room.enter(pixels);
                        let now = held.fetch_add(pixels, Ordering::SeqCst) + pixels;
                        // The largest comes in alone; a picture of no pixels takes no room.
                        assert!(now <= 100 || now == 250, "{now} pixels");
                        peak.fetch_max(now, Ordering::SeqCst);
                        std::thread::yield_now();
                        held.fetch_sub(pixels, Ordering::SeqCst);
                    }
                });
            }
        });
        assert_eq!((*room.held.lock().unwrap(), peak.into_inner()), (0, 250));
    }

    #[test]
    fn small_pictures_wait_behind_a_large_one() {
        let room = PixelBudget::new(100);
        let (first, second) = (room.enter(60), room.enter(30));
        let (entered, order) = channel();
        std::thread::scope(|scope| {
            for pixels in [100, 5] {
                let (room, entered) = (&room, entered.clone());
                scope.spawn(move || {
                    let _held = room.enter(pixels);
                    entered.send(pixels).unwrap();
                });
                // The large one is at the door before the small one comes.
                while room.door.try_lock().is_ok() {
                    std::thread::yield_now();
                }
            }
            assert!(order.recv_timeout(Duration::from_millis(20)).is_err(), "nobody fits");
            drop((first, second));
            assert_eq!([order.recv().unwrap(), order.recv().unwrap()], [100, 5]);
        });
    }

    #[test]
    fn memory_says_how_much() {
        assert_eq!((most(Some(32 << 30)), most(Some(0)), most(None)), (1 << 30, 0, MAX_PIXELS));
    }
}
