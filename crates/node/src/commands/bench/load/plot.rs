//! What a run looked like, as an SVG: answers and errors a second, and latency, over time, with what
//! was done to the pair marked. Drawn by hand: three panels, a few lines each.

use std::fmt::Write;

/// One tenth of a second of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Slice {
    /// Calls answered in it.
    pub(super) done: u64,
    /// Calls that ended in an error in it.
    pub(super) failed: u64,
    /// The longest time of those meant to be sent in it, in microseconds.
    pub(super) worst_us: u64,
}

/// Something to be marked.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Mark {
    pub(super) at_seconds: f64,
    pub(super) text: String,
}

/// Draws it.
pub(super) fn svg(title: &str, slices: &[Slice], marks: &[Mark]) -> String {
    let seconds = (slices.len() as f64 * SLICE_SECONDS).max(SLICE_SECONDS);
    let per_second = |count: u64| count as f64 / SLICE_SECONDS;
    let mut out = String::new();
    let add = |out: &mut String, text: &str| {
        out.push_str(text);
        out.push('\n');
    };
    add(
        &mut out,
        &format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         font-family=\"sans-serif\" font-size=\"12\">"
        ),
    );
    add(&mut out, &format!("<rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#ffffff\"/>"));
    add(
        &mut out,
        &format!("<text x=\"{LEFT}\" y=\"18\" font-size=\"14\">{}</text>", escaped(title)),
    );
    let panels = [
        Panel {
            name: "answers / s",
            colour: "#1a6fb5",
            logarithmic: false,
            values: slices.iter().map(|slice| per_second(slice.done)).collect(),
        },
        Panel {
            name: "errors / s",
            colour: "#c0392b",
            logarithmic: false,
            values: slices.iter().map(|slice| per_second(slice.failed)).collect(),
        },
        Panel {
            name: "worst ms (log)",
            colour: "#2d8a4e",
            logarithmic: true,
            values: slices.iter().map(|slice| slice.worst_us as f64 / 1_000.0).collect(),
        },
    ];
    for (index, panel) in panels.iter().enumerate() {
        panel.draw(TOP + index as f64 * (PANEL + GAP), &mut out);
    }
    let bottom = TOP + 3.0 * PANEL + 2.0 * GAP;
    draw_marks(marks, seconds, bottom, &mut out);
    for tick in 0..=10 {
        let x = LEFT + f64::from(tick) / 10.0 * PLOT;
        let at = seconds * f64::from(tick) / 10.0;
        let y = bottom + 16.0;
        add(
            &mut out,
            &format!(
                "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"middle\" fill=\"#555555\">{at:.0} s</text>"
            ),
        );
    }
    add(&mut out, "</svg>");
    out
}

/// In two rows, by time: neighbours do not write over each other.
fn draw_marks(marks: &[Mark], seconds: f64, bottom: f64, out: &mut String) {
    let mut marks: Vec<&Mark> = marks.iter().collect();
    marks.sort_by(|one, other| one.at_seconds.total_cmp(&other.at_seconds));
    for (index, mark) in marks.into_iter().enumerate() {
        let x = LEFT + mark.at_seconds / seconds * PLOT;
        let y = TOP - 6.0 - (index % 2) as f64 * 13.0;
        out.push_str(&format!(
            "<line x1=\"{x:.1}\" y1=\"{TOP}\" x2=\"{x:.1}\" y2=\"{bottom}\" stroke=\"#888888\" \
             stroke-dasharray=\"4 3\"/><text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"middle\" \
             fill=\"#555555\">{}</text>\n",
            escaped(&mark.text)
        ));
    }
}

struct Panel {
    name: &'static str,
    colour: &'static str,
    logarithmic: bool,
    values: Vec<f64>,
}

impl Panel {
    fn draw(&self, top: f64, out: &mut String) {
        let highest = self.values.iter().copied().fold(0.0, f64::max).max(1.0);
        let height = |value: f64| {
            let part = if self.logarithmic {
                (1.0 + value).ln() / (1.0 + highest).ln()
            } else {
                value / highest
            };
            top + PANEL * (1.0 - part)
        };
        let (bottom, middle, right) = (top + PANEL, top + PANEL / 2.0, LEFT + PLOT);
        // Writing to a String does not fail.
        let _ = writeln!(
            out,
            "<rect x=\"{LEFT}\" y=\"{top}\" width=\"{PLOT}\" height=\"{PANEL}\" fill=\"none\" \
             stroke=\"#cccccc\"/><text x=\"{x}\" y=\"{y}\" text-anchor=\"end\" fill=\"#555555\">\
             {highest:.0}</text><text x=\"{x}\" y=\"{bottom}\" text-anchor=\"end\" \
             fill=\"#555555\">0</text><text x=\"{x}\" y=\"{middle}\" text-anchor=\"end\" \
             fill=\"{colour}\">{name}</text>",
            x = LEFT - 6.0,
            y = top + 10.0,
            colour = self.colour,
            name = self.name,
        );
        let step = PLOT / self.values.len().max(1) as f64;
        let mut points = format!("{LEFT:.1},{bottom:.1} ");
        for (index, value) in self.values.iter().enumerate() {
            let (x, y) = (LEFT + index as f64 * step, height(*value));
            let _ = write!(points, "{x:.1},{y:.1} {:.1},{y:.1} ", x + step);
        }
        let _ = writeln!(
            out,
            "<polygon points=\"{points}{right:.1},{bottom:.1}\" fill=\"{0}\" fill-opacity=\"0.25\" \
             stroke=\"{0}\"/>",
            self.colour
        );
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

pub(super) const SLICE_SECONDS: f64 = 0.1;
const WIDTH: f64 = 1_000.0;
const HEIGHT: f64 = 560.0;
const LEFT: f64 = 130.0;
const PLOT: f64 = 850.0;
const TOP: f64 = 60.0;
const PANEL: f64 = 140.0;
const GAP: f64 = 16.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plot_has_its_panels_its_marks_and_no_markup_of_others() {
        let slices = [Slice { done: 5, failed: 1, worst_us: 2_000 }, Slice::default()];
        let marks = [Mark { at_seconds: 0.1, text: "<kill> & co".to_owned() }];
        let drawn = svg("a run", &slices, &marks);
        assert!(drawn.starts_with("<svg ") && drawn.trim_end().ends_with("</svg>"));
        assert_eq!(drawn.matches("<polygon").count(), 3);
        assert!(drawn.contains("&lt;kill&gt; &amp; co") && !drawn.contains("NaN"));
        assert!(!svg("empty", &[], &[]).contains("NaN"));
    }
}
