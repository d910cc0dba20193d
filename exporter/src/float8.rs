//! 8-bit floats, ONNX's `FLOAT8E4M3FN`: a sign, 4 bits of exponent and 3 behind the point. There are
//! no infinities among them.

/// The largest of them.
const LARGEST: f32 = 448.0;

/// The least of those that have all their digits, 2^-6; below it are eighths of it.
const LEAST: f32 = 1.0 / 64.0;

/// The least scale, which fp16 has with all its digits.
const LEAST_SCALE: f32 = 1.0 / 16384.0;

/// The least power of two by which all of `values` are divided into the range of 8-bit floats.
pub(crate) fn scale(values: &[f32]) -> f32 {
    let largest = values.iter().fold(0f32, |largest, v| largest.max(v.abs()));
    let mut scale = LEAST_SCALE;
    while largest / scale > LARGEST {
        scale *= 2.0;
    }
    scale
}

/// The 8-bit float nearest to `value`, halfway the even one; the largest for all that is beyond.
pub(crate) fn encode(value: f32) -> u8 {
    let sign = if value.is_sign_negative() { 0x80 } else { 0 };
    let magnitude = value.abs().min(LARGEST);
    if magnitude < LEAST {
        // Multiples of 2^-9, of which the eighth is the least with all its digits.
        return sign | (magnitude * 512.0).round_ties_even() as u8;
    }
    let bits = magnitude.to_bits();
    // 20 of the 23 bits behind the point go.
    let rounded = bits + 0x7_ffff + ((bits >> 20) & 1);
    sign | ((rounded >> 20) - (120 << 3)) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The value of `code`, as ONNX defines it.
    fn decode(code: u8) -> f32 {
        let (exponent, digits) = (i32::from(code >> 3 & 0xf), f32::from(code & 7));
        let magnitude = match exponent {
            0 => digits / 8.0 * 2f32.powi(-6),
            _ => (1.0 + digits / 8.0) * 2f32.powi(exponent - 7),
        };
        if code & 0x80 == 0 { magnitude } else { -magnitude }
    }

    #[test]
    fn every_number_is_kept_and_those_between_go_to_the_nearest() {
        for code in 0..0x7f {
            assert_eq!((encode(decode(code)), encode(-decode(code))), (code, code | 0x80));
        }
        for code in 0..0x7e {
            let (low, high) = (decode(code), decode(code + 1));
            let halfway = (low + high) / 2.0;
            assert_eq!(encode(halfway), if code % 2 == 0 { code } else { code + 1 }, "{halfway}");
            assert_eq!(encode(halfway.next_down()), code, "{halfway}");
            assert_eq!(encode(halfway.next_up()), code + 1, "{halfway}");
        }
        for beyond in [449.0, 464.0, 1e30] {
            assert_eq!((encode(beyond), encode(-beyond)), (0x7e, 0xfe));
        }
    }

    #[test]
    fn a_scale_is_the_least_power_of_two_that_suffices() {
        for (largest, expected) in
            [(448.0, 1.0), (449.0, 2.0), (-448.5, 2.0), (1.0, 1.0 / 256.0), (0.0, LEAST_SCALE)]
        {
            assert_eq!(scale(&[0.25 * largest, largest]), expected, "{largest}");
        }
    }
}
