//! Timesteps, as programs and people read them.

use serde_json::Value;

/// `timesteps` as JSON: whole ones as integers.
pub fn json(timesteps: &[f32]) -> Vec<Value> {
    let number = |&t: &f32| match t.fract() {
        0.0 => Value::from(t as u32),
        _ => Value::from(t),
    };
    timesteps.iter().map(number).collect()
}

/// `timesteps` as texts of one width, to a tenth if they are not all whole.
pub fn texts(timesteps: &[f32]) -> Vec<String> {
    if timesteps.iter().all(|t| t.fract() == 0.0) {
        timesteps.iter().map(|t| format!("{t:>5}")).collect()
    } else {
        timesteps.iter().map(|t| format!("{t:>7.1}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_timesteps_are_integers() {
        assert_eq!(json(&[999.0, 41.625]), [Value::from(999), Value::from(41.625)]);
        assert_eq!(texts(&[999.0, 1.0]), ["  999", "    1"]);
        assert_eq!(texts(&[999.0, 41.625]), ["  999.0", "   41.6"]);
    }
}
