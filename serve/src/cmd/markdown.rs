//! Tables that can be read where they are printed.

/// Writes a table of `header` and `rows`: the first `names` columns, which name something, flush
/// left, the others, which are figures, flush right. A column without any entry is left out.
pub fn markdown(header: &[&str], names: usize, rows: &[Vec<String>]) -> String {
    let columns: Vec<usize> =
        (0..header.len()).filter(|&i| rows.iter().any(|row| !row[i].is_empty())).collect();
    let width = |i: usize| {
        let cells = rows.iter().map(|row| row[i].chars().count());
        cells.chain([header[i].len(), 4]).max().unwrap_or(0)
    };
    let line = |cell: &dyn Fn(usize) -> String| {
        let cells: Vec<String> = columns.iter().map(|&i| cell(i)).collect();
        format!("| {} |\n", cells.join(" | "))
    };
    let padded = |i: usize, text: &str| {
        if i < names { format!("{text:<0$}", width(i)) } else { format!("{text:>0$}", width(i)) }
    };
    let mut out = line(&|i| padded(i, header[i]));
    out += &line(&|i| {
        if i < names { "-".repeat(width(i)) } else { format!("{}:", "-".repeat(width(i) - 1)) }
    });
    out + &rows.iter().map(|row| line(&|i| padded(i, &row[i]))).collect::<String>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_empty_ones_are_left_out() {
        let header = ["model", "engine", "threads", "policy", "loop"];
        let row = |policy: &str, time: &str| {
            vec![String::new(), String::new(), String::new(), policy.to_string(), time.to_string()]
        };
        let expected = "| policy    |   loop |\n| --------- | -----: |\n\
                        | off       |  1.000 |\n| N2-700-50 | 10.000 |\n";
        let rows = [row("off", "1.000"), row("N2-700-50", "10.000")];
        assert_eq!(markdown(&header, 4, &rows), expected);
    }
}
