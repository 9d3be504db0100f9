//! Pictures for the load: gradients, noise and shapes, drawn from a seed and encoded once.
//!
//! Their sizes and formats differ, so that decoding has more than one shape in the profile.

use std::io::Cursor;

use image::{ImageFormat, ImageResult, Rgb, RgbImage};

use crate::rng::Rng;

/// One picture, ready to post.
#[derive(Debug)]
pub(crate) struct Scene {
    pub(crate) content_type: &'static str,
    pub(crate) bytes: Vec<u8>,
}

impl Scene {
    /// All pictures, always the same ones.
    pub(crate) fn all() -> ImageResult<Vec<Self>> {
        SCENES
            .into_iter()
            .zip(0..)
            .map(|((format, width, height), seed)| {
                let mut bytes = Cursor::new(Vec::new());
                draw(width, height, seed).write_to(&mut bytes, format)?;
                Ok(Self { content_type: format.to_mime_type(), bytes: bytes.into_inner() })
            })
            .collect()
    }
}

const SCENES: [(ImageFormat, u32, u32); 6] = [
    (ImageFormat::Jpeg, 640, 480),
    (ImageFormat::Png, 640, 360),
    (ImageFormat::Jpeg, 1280, 720),
    (ImageFormat::Png, 480, 800),
    (ImageFormat::Jpeg, 1920, 1080),
    (ImageFormat::Jpeg, 320, 320),
];

/// How many shapes lie on the ground.
const SHAPES: usize = 14;

fn draw(width: u32, height: u32, seed: u64) -> RgbImage {
    let mut rng = Rng::new(seed);
    let (sky, ground) = (colour(&mut rng), colour(&mut rng));
    let mut picture = RgbImage::from_fn(width, height, |_, y| {
        let depth = y as f32 / height as f32;
        let noise = rng.between(-8.0, 8.0);
        Rgb(std::array::from_fn(|channel| {
            (sky[channel] + (ground[channel] - sky[channel]) * depth + noise) as u8
        }))
    });
    for index in 0..SHAPES {
        let shape = Shape::new(width, height, index % 2 == 0, &mut rng);
        shape.fill(&mut picture);
    }
    picture
}

/// A disc, or the square around it.
#[derive(Debug)]
struct Shape {
    x: f32,
    y: f32,
    radius: f32,
    round: bool,
    colour: Rgb<u8>,
}

impl Shape {
    fn new(width: u32, height: u32, round: bool, rng: &mut Rng) -> Self {
        let shorter = width.min(height) as f32;
        Self {
            x: rng.between(0.0, width as f32),
            y: rng.between(0.0, height as f32),
            radius: rng.between(shorter / 30.0, shorter / 6.0),
            round,
            colour: Rgb(colour(rng).map(|level| level as u8)),
        }
    }

    fn fill(&self, picture: &mut RgbImage) {
        let span = |centre: f32, side: u32| {
            // A cast to an integer stops at zero, which is where the picture begins.
            (centre - self.radius) as u32..((centre + self.radius) as u32).min(side)
        };
        for y in span(self.y, picture.height()) {
            for x in span(self.x, picture.width()) {
                let (across, down) = (x as f32 - self.x, y as f32 - self.y);
                if !self.round || across * across + down * down <= self.radius * self.radius {
                    picture.put_pixel(x, y, self.colour);
                }
            }
        }
    }
}

/// Levels that stay within a byte when a little noise is added.
fn colour(rng: &mut Rng) -> [f32; 3] {
    std::array::from_fn(|_| rng.between(16.0, 240.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::picture;

    #[test]
    fn every_scene_is_one_that_the_service_takes() {
        let scenes = Scene::all().expect("encodes");
        assert!(scenes.iter().any(|scene| scene.content_type == "image/png"));
        assert!(scenes.iter().any(|scene| scene.content_type == "image/jpeg"));
        for (scene, (_, width, height)) in scenes.iter().zip(SCENES) {
            let decoded = picture::decode(&scene.bytes).expect("decodes");
            assert_eq!(decoded.dimensions(), (width, height));
        }
    }
}
