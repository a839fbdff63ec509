//! Draws the plots, as SVG.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::prelude::*;

use crate::plan::{self, Column};
use crate::results::Results;

const SIZE: (u32, u32) = (1000, 620);

/// Curves of microseconds over the number of threads.
struct Curves {
    file: &'static str,
    title: &'static str,
    scenario: &'static str,
    columns: &'static [Column],
}

const CURVES: [Curves; 2] = [
    Curves {
        file: "asleep.svg",
        title: "One call on N sleeping threads: median, microseconds",
        scenario: "asleep",
        columns: &[
            plan::OURS,
            plan::LIBPSX,
            plan::GLIBC,
            plan::GO,
            plan::GO_PSX,
            plan::MUSL,
            plan::ONE_BY_ONE,
            plan::FLOOR,
            plan::TWICE,
            plan::SECCOMP,
        ],
    },
    Curves {
        file: "drop.svg",
        title: "Six calls that drop privileges, N sleeping threads: median, microseconds",
        scenario: "drop",
        columns: &[
            plan::DROP_ONE,
            plan::DROP_SIX,
            plan::DROP_LIBPSX,
            plan::DROP_MIXED,
            plan::DROP_GO,
            plan::DROP_GO_PSX,
            plan::DROP_FLOOR,
        ],
    },
];

/// Draws a plot for each scenario that has results. Returns the names of the files and their titles.
pub(crate) fn all(results: &Results, out: &Path) -> Result<Vec<(&'static str, &'static str)>> {
    let mut drawn = Vec::new();
    for curves in &CURVES {
        if draw(curves, results, &out.join(curves.file)).map_err(|error| anyhow!("{error}"))? {
            drawn.push((curves.file, curves.title));
        }
    }
    Ok(drawn)
}

type Point = (f64, f64);

/// Returns the points of one column. N = 0 is left out, because a logarithmic scale has no place for it.
fn points(results: &Results, scenario: &str, column: Column) -> Vec<Point> {
    let sizes = results.sizes(scenario).into_iter().filter(|&threads| threads > 0);
    sizes.filter_map(|n| Some((n as f64, results.median(scenario, n, column)? / 1e3))).collect()
}

fn draw(
    curves: &Curves,
    results: &Results,
    file: &Path,
) -> Result<bool, Box<dyn std::error::Error>> {
    let lines: Vec<(Column, Vec<Point>)> = curves
        .columns
        .iter()
        .map(|&column| (column, points(results, curves.scenario, column)))
        .filter(|(_, points)| points.len() > 1)
        .collect();
    let all = || lines.iter().flat_map(|(_, points)| points);
    let range = |of: fn(&Point) -> f64| {
        let values = || all().map(of);
        (values().fold(f64::INFINITY, f64::min), values().fold(0.0, f64::max))
    };
    let ((left, right), (low, high)) = (range(|point| point.0), range(|point| point.1));
    if lines.is_empty() {
        return Ok(false);
    }
    let area = SVGBackend::new(file, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(curves.title, ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(70)
        .build_cartesian_2d((left..right * 1.1).log_scale(), (low / 1.5..high * 1.5).log_scale())?;
    chart.configure_mesh().x_desc("N, threads").y_desc("us").light_line_style(WHITE).draw()?;
    for (number, (column, points)) in lines.into_iter().enumerate() {
        let colour = Palette99::pick(number).mix(0.9);
        let width = if column.program == "ours" { 3 } else { 1 };
        let style = colour.stroke_width(width);
        let dots = points.clone();
        chart
            .draw_series(LineSeries::new(points, style))?
            .label(column.name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], style));
        chart.draw_series(dots.into_iter().map(|point| Circle::new(point, 3, colour.filled())))?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .draw()?;
    area.present()?;
    Ok(true)
}
