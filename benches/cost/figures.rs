//! Figures: what is made of many, how they are shown, and where they are kept.

use std::{fs, path::Path, thread::available_parallelism};

use anyhow::Context as _;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::lab::Lab;

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/bench");

/// The smallest of them that so many percent do not exceed; 0 if there is none.
pub fn percentile(values: &[f64], percent: usize) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

pub fn median(values: &[f64]) -> f64 {
    percentile(values, 50)
}

/// How many times the other.
pub fn ratio(figure: f64, other: f64) -> String {
    format!("{:.2}", figure / other)
}

/// As Markdown, in columns.
pub fn print_table(head: &[&str], rows: &[Vec<String>]) {
    let head: Vec<String> = head.iter().map(ToString::to_string).collect();
    let width = |column: usize| {
        let cells = rows.iter().chain([&head]).filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let print = |row: &[String]| {
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            // Names to the left, figures to the right.
            if column == 0 {
                print!("| {cell:<width$} |");
            } else {
                print!(" {cell:>width$} |");
            }
        }
        println!();
    };
    print(&head);
    println!("|---|{}", "---:|".repeat(head.len().saturating_sub(1)));
    for row in rows {
        print(row);
    }
}

/// Load of the machine: processes that run or want to, on average over the last minute.
pub fn load() -> anyhow::Result<f64> {
    let text = fs::read_to_string("/proc/loadavg")?;
    Ok(text.split_whitespace().next().context("/proc/loadavg is empty")?.parse()?)
}

/// Writes them to `target/bench/NAME.json`, with what has to be known to compare them with others.
pub fn keep(lab: &Lab, name: &str, rounds: usize, figures: &[Value]) -> anyhow::Result<()> {
    let engines: Map<_, _> = lab.nodes.iter().map(|node| (node.name.clone(), node.runs.clone().into())).collect();
    let kept = json!({
        "time": Timestamp::now().to_string(), "processors": available_parallelism()?.get(),
        "loadBefore": lab.load_before, "engines": engines, "rounds": rounds, "figures": figures,
    });
    fs::create_dir_all(FOLDER)?;
    let path = Path::new(FOLDER).join(name).with_extension("json");
    fs::write(&path, serde_json::to_string_pretty(&kept)? + "\n").with_context(|| path.display().to_string())?;
    println!("\nwritten to target/bench/{name}.json");
    Ok(())
}
