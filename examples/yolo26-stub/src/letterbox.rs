//! Fits any picture into the network's square without bending it, and finds the way back.
//!
//! The picture is scaled to touch the square on its longer side and centred; what remains is
//! grey. A detection's box, found in the square, is mapped back to the picture's own pixels.

use image::RgbImage;

use crate::network::FeatureMap;
use crate::nms::BoundingBox;

/// Where a picture of one size lies in a square of another.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Letterbox {
    size: usize,
    /// Square pixels to a picture pixel.
    scale: f32,
    left: usize,
    top: usize,
    width: usize,
    height: usize,
    picture_width: u32,
    picture_height: u32,
}

impl Letterbox {
    /// Lays out a picture of at least one pixel in a square of `size` pixels a side.
    pub(crate) fn new(picture_width: u32, picture_height: u32, size: usize) -> Self {
        let scale = size as f32 / picture_width.max(picture_height) as f32;
        // A hair's breadth of a picture still gets its one row of the square.
        let scaled = |side: u32| ((side as f32 * scale).round() as usize).clamp(1, size);
        let (width, height) = (scaled(picture_width), scaled(picture_height));
        let (left, top) = ((size - width) / 2, (size - height) / 2);
        Self { size, scale, left, top, width, height, picture_width, picture_height }
    }

    /// Draws the picture into the square, as numbers around zero.
    pub(crate) fn draw(&self, picture: &RgbImage) -> FeatureMap {
        let mut square = FeatureMap::filled(self.size, self.size, 3, GREY - 0.5);
        let row_bytes = 3 * self.picture_width as usize;
        let columns: Vec<Sample> =
            (0..self.width).map(|x| Sample::new(x, self.scale, self.picture_width)).collect();
        for y in 0..self.height {
            let rows = Sample::new(y, self.scale, self.picture_height);
            let upper = &picture.as_raw()[rows.first * row_bytes..][..row_bytes];
            let lower = &picture.as_raw()[rows.second * row_bytes..][..row_bytes];
            let pixels = &mut square.row_mut(self.top + y)[3 * self.left..];
            for (pixel, columns) in pixels.chunks_exact_mut(3).zip(&columns) {
                let (a, b) = (3 * columns.first, 3 * columns.second);
                for (channel, value) in pixel.iter_mut().enumerate() {
                    let above = columns.mix(upper[a + channel], upper[b + channel]);
                    let below = columns.mix(lower[a + channel], lower[b + channel]);
                    let level = above + (below - above) * rows.weight;
                    *value = level / 255.0 - 0.5;
                }
            }
        }
        square
    }

    /// Maps a box in the square to the picture's pixels, cut at the picture's edge.
    pub(crate) fn to_picture(self, found: BoundingBox) -> BoundingBox {
        let across = |x: f32| self.back(x, self.left, self.picture_width);
        let down = |y: f32| self.back(y, self.top, self.picture_height);
        let (x, y) = (across(found.x), down(found.y));
        let (right, bottom) = (across(found.x + found.width), down(found.y + found.height));
        BoundingBox { x, y, width: right - x, height: bottom - y }
    }

    fn back(&self, position: f32, margin: usize, side: u32) -> f32 {
        ((position - margin as f32) / self.scale).clamp(0.0, side as f32)
    }
}

/// The grey of the margins, as other implementations of this network have it.
const GREY: f32 = 114.0 / 255.0;

/// Which two neighbours of a source row or column make one of the square's, and how.
#[derive(Debug, Clone, Copy)]
struct Sample {
    first: usize,
    second: usize,
    /// Share of `second`.
    weight: f32,
}

impl Sample {
    fn new(position: usize, scale: f32, side: u32) -> Self {
        let last = side.saturating_sub(1) as usize;
        // Pixels have centres: half a pixel in, scaled, half a pixel out.
        let source = ((position as f32 + 0.5) / scale - 0.5).clamp(0.0, last as f32);
        let first = source as usize;
        Self { first, second: (first + 1).min(last), weight: source - first as f32 }
    }

    fn mix(self, first: u8, second: u8) -> f32 {
        let (first, second) = (f32::from(first), f32::from(second));
        first + (second - first) * self.weight
    }
}

#[cfg(test)]
mod tests {
    use image::Rgb;

    use super::*;

    #[test]
    fn boxes_come_back_from_the_square() {
        for (width, height) in [(640, 480), (480, 640), (33, 33), (1920, 1080), (5, 7)] {
            let letterbox = Letterbox::new(width, height, 320);
            let (left, top) = (letterbox.left as f32, letterbox.top as f32);
            let original = BoundingBox {
                x: width as f32 * 0.25,
                y: height as f32 * 0.5,
                width: width as f32 * 0.5,
                height: height as f32 * 0.25,
            };
            let back = letterbox.to_picture(BoundingBox {
                x: original.x * letterbox.scale + left,
                y: original.y * letterbox.scale + top,
                width: original.width * letterbox.scale,
                height: original.height * letterbox.scale,
            });
            for (a, b) in <[f32; 4]>::from(back).into_iter().zip(<[f32; 4]>::from(original)) {
                assert!((a - b).abs() < 0.11, "{width} x {height}: {back:?} is not {original:?}");
            }
        }
    }

    #[test]
    fn a_box_ends_with_the_picture() {
        let square = BoundingBox { x: -10.0, y: -10.0, width: 340.0, height: 340.0 };
        let whole = BoundingBox { x: 0.0, y: 0.0, width: 640.0, height: 480.0 };
        assert_eq!(Letterbox::new(640, 480, 320).to_picture(square), whole);
    }

    #[test]
    fn the_picture_is_centred_between_grey_margins() {
        let picture = RgbImage::from_pixel(200, 100, Rgb([255, 255, 255]));
        let square = Letterbox::new(200, 100, 64).draw(&picture);
        let level = |y: usize| square.row(y)[32 * 3];
        assert_eq!([level(15), level(48)], [GREY - 0.5; 2]);
        assert_eq!([level(16), level(47)], [0.5; 2]);
    }

    #[test]
    fn a_picture_of_the_squares_size_is_copied() {
        let picture = RgbImage::from_fn(64, 64, |x, y| Rgb([x as u8, y as u8, (x * y) as u8]));
        let square = Letterbox::new(64, 64, 64).draw(&picture);
        for (x, y, pixel) in picture.enumerate_pixels() {
            let drawn = &square.row(y as usize)[3 * x as usize..][..3];
            let expect = pixel.0.map(|level| f32::from(level) / 255.0 - 0.5);
            assert_eq!(drawn, expect);
        }
    }

    #[test]
    fn extreme_shapes_keep_a_row() {
        for (width, height) in [(1, 1), (8192, 1), (1, 8192)] {
            let letterbox = Letterbox::new(width, height, 64);
            assert!(letterbox.width >= 1 && letterbox.height >= 1);
            letterbox.draw(&RgbImage::new(width, height));
        }
    }
}
