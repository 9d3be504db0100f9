//! From the bytes of a request to pixels, with a bound on what a few bytes may cost us.
//!
//! The bytes say what they are: a Content-Type header is not consulted. An orientation tag is
//! ignored, so boxes are in the coordinates of the pixels as stored.

use std::io::Cursor;

use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits, RgbImage};

use crate::error::DetectError;

/// The longest side that is decoded.
pub(crate) const MAX_SIDE: u32 = 8192;
/// The most pixels that are decoded: 16-bit RGBA, the widest that PNG has, is then 192 MB.
pub(crate) const MAX_PIXELS: u64 = 24_000_000;

/// Decodes a JPEG or PNG.
pub(crate) fn decode(bytes: &[u8]) -> Result<RgbImage, DetectError> {
    if bytes.is_empty() {
        return Err(DetectError::Empty);
    }
    let mut reader = ImageReader::with_format(Cursor::new(bytes), allowed_format(bytes)?);
    reader.limits(limits());
    let decoder = reader.into_decoder().map_err(damaged)?;

    // The header alone has been read; a bomb stops here, before its pixels have a buffer.
    let (width, height) = decoder.dimensions();
    if width.max(height) > MAX_SIDE || u64::from(width) * u64::from(height) > MAX_PIXELS {
        return Err(DetectError::TooManyPixels { width, height });
    }
    Ok(DynamicImage::from_decoder(decoder).map_err(damaged)?.into_rgb8())
}

fn allowed_format(bytes: &[u8]) -> Result<ImageFormat, DetectError> {
    match image::guess_format(bytes) {
        Ok(format @ (ImageFormat::Jpeg | ImageFormat::Png)) => Ok(format),
        Ok(other) => Err(DetectError::Format(Some(format!("{other:?}").to_uppercase()))),
        Err(_) => Err(DetectError::Format(None)),
    }
}

/// What the decoders may allocate on their own account, such as for a compressed colour profile.
fn limits() -> Limits {
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(MAX_PIXELS * 8);
    limits
}

#[expect(clippy::needless_pass_by_value, reason = "the signature that `map_err` wants")]
fn damaged(error: image::ImageError) -> DetectError {
    DetectError::Damaged(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_formats_decode_to_the_pixels_that_were_encoded() {
        let picture = RgbImage::from_pixel(31, 17, image::Rgb([200, 100, 50]));
        for format in [ImageFormat::Png, ImageFormat::Jpeg] {
            let decoded = decode(&encode(&picture, format)).expect("decodes");
            assert_eq!(decoded.dimensions(), (31, 17));
            let near = |(a, b): (u8, u8)| a.abs_diff(b) <= 3;
            assert!(decoded.into_raw().into_iter().zip(picture.to_vec()).all(near), "{format:?}");
        }
    }

    #[test]
    fn what_is_no_picture_is_told_apart() {
        assert!(matches!(decode(b""), Err(DetectError::Empty)));
        assert!(matches!(decode(b"{\"picture\": 1}"), Err(DetectError::Format(None))));
        let Err(DetectError::Format(Some(name))) = decode(b"GIF89a\x01\x00\x01\x00") else {
            panic!("GIF not named")
        };
        assert_eq!(name, "GIF");
    }

    #[test]
    fn a_picture_cut_short_is_damaged() {
        let picture = RgbImage::from_fn(64, 64, |x, y| image::Rgb([x as u8, y as u8, 0]));
        let png = encode(&picture, ImageFormat::Png);
        assert!(matches!(decode(&png[..png.len() / 2]), Err(DetectError::Damaged(_))));
        let jpeg = encode(&picture, ImageFormat::Jpeg);
        assert!(matches!(decode(&jpeg[..30]), Err(DetectError::Damaged(_))));
    }

    #[test]
    fn a_bomb_is_refused_by_its_header() {
        let Err(DetectError::TooManyPixels { width, height }) = decode(&png_header(60_000, 50_000))
        else {
            panic!("not refused")
        };
        assert_eq!((width, height), (60_000, 50_000));
        // Within the sides, beyond the area.
        assert!(matches!(decode(&png_header(8192, 8192)), Err(DetectError::TooManyPixels { .. })));
    }

    fn encode(picture: &RgbImage, format: ImageFormat) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        picture.write_to(&mut bytes, format).expect("encodes");
        bytes.into_inner()
    }

    /// The start of a PNG of that size: a one-pixel file whose header is rewritten, with the
    /// checksum that the new header has.
    fn png_header(width: u32, height: u32) -> Vec<u8> {
        let mut png = encode(&RgbImage::new(1, 1), ImageFormat::Png);
        png[16..20].copy_from_slice(&width.to_be_bytes());
        png[20..24].copy_from_slice(&height.to_be_bytes());
        let checksum = crc32(&png[12..29]);
        png[29..33].copy_from_slice(&checksum.to_be_bytes());
        png
    }

    fn crc32(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(!0, |crc, &byte| {
            (0..8).fold(crc ^ u32::from(byte), |crc, _| {
                (crc >> 1) ^ if crc & 1 == 1 { 0xedb8_8320 } else { 0 }
            })
        })
    }
}
