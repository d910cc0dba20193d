//! How near the pictures come for each number of core runs, drawn in the terminal.

use std::fmt::Write;

use hydit::cache::{Measured, Schedules};

/// Places of the scale.
const WIDTH: usize = 56;
/// The scale begins and ends at a multiple of this.
const DECIBELS: f64 = 10.0;
/// The qualities whose schedule is named.
const QUALITIES: [u32; 3] = [30, 35, 40];

/// A line for each schedule of `found` that was measured, from the PSNR that nine pictures in ten
/// reach to the mean, with the `auto` policies that take it where the calibration is `usual`: one
/// that `auto` finds. Empty if none was measured.
pub fn plot(found: &Schedules, usual: bool) -> String {
    let points: Vec<(usize, Measured)> = found
        .schedules
        .iter()
        .filter_map(|schedule| Some((schedule.refresh.len(), schedule.measured?)))
        .collect();
    let all = points.iter().flat_map(|(_, measured)| [measured.psnr_p10, measured.psnr]);
    let (Some(least), Some(most)) =
        (all.clone().reduce(f64::min), all.map(|psnr| psnr + 0.1).reduce(f64::max))
    else {
        return String::new();
    };
    let low = (least / DECIBELS).floor() * DECIBELS;
    let high = (most / DECIBELS).ceil() * DECIBELS;
    let place = |psnr: f64| ((psnr - low) / (high - low) * WIDTH as f64).round() as usize;

    let mut out =
        String::from("core runs  PSNR, dB: from what nine pictures in ten reach to the mean\n");
    for &(runs, Measured { psnr, psnr_p10, .. }) in &points {
        let (from, to) = (place(psnr_p10.min(psnr)), place(psnr));
        let line = format!("{}{}●", " ".repeat(from), "─".repeat(to - from));
        let taken = QUALITIES.iter().filter(|&&quality| {
            let taken = found.for_quality(quality.into());
            usual && taken.is_some_and(|schedule| schedule.refresh.len() == runs)
        });
        let taken: Vec<String> = taken.map(|quality| format!("auto:{quality}dB")).collect();
        let pad = if taken.is_empty() { 0 } else { WIDTH + 3 };
        let line = format!("{line:<pad$}{}", taken.join(", "));
        writeln!(out, "{runs:9}  {line}").expect("a String takes all");
    }
    let ticks = ((high - low) / DECIBELS).round() as usize;
    let marks = (0..=ticks).map(|tick| low + tick as f64 * DECIBELS);
    let axis = marks.fold(String::new(), |axis, mark| format!("{axis:<0$}{mark}", place(mark)));
    writeln!(out, "{:9}  {axis}", "").expect("a String takes all");
    out
}

#[cfg(test)]
mod tests {
    use hydit::cache::Schedule;

    use super::*;

    /// Schedules of 25 steps by their core runs, means and what nine pictures in ten reach.
    fn found(points: &[(usize, f64, f64)]) -> Schedules {
        let schedule = |&(runs, psnr, psnr_p10): &(usize, f64, f64)| Schedule {
            refresh: (0..runs).collect(),
            measured: Some(Measured { psnr, psnr_p10, ssim: 1.0, latent_error: 0.0 }),
            ..Schedule::default()
        };
        let schedules = points.iter().map(schedule).collect();
        Schedules { steps: 25, schedules, ..Schedules::default() }
    }

    #[test]
    fn a_plot_has_a_line_for_each_schedule_and_names_what_auto_takes() {
        let found = found(&[(6, 31.0, 28.0), (8, 37.8, 33.0), (11, 46.0, 40.5)]);
        let expected = "\
core runs  PSNR, dB: from what nine pictures in ten reach to the mean
        6                 ──────●                                     auto:30dB
        8                          ─────────●                         auto:35dB
       11                                        ───────────●         auto:40dB
           20                 30                40                 50
";
        assert_eq!(plot(&found, true), expected);
    }

    #[test]
    fn a_file_that_auto_does_not_find_is_not_said_to_be_taken() {
        assert!(!plot(&found(&[(6, 31.0, 28.0)]), false).contains("auto"));
    }

    #[test]
    fn nothing_is_drawn_where_nothing_was_measured() {
        let nothing = Schedules { schedules: vec![Schedule::default()], ..Schedules::default() };
        assert_eq!(plot(&nothing, true), "");
    }
}
