//! Plots as SVG: lines or points on logarithmic or linear axes, and bars.

use std::fmt::Write;

use crate::units;

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 520.0;
const LEFT: f64 = 80.0;
const RIGHT: f64 = 200.0;
const TOP: f64 = 60.0;
const BOTTOM: f64 = 56.0;
/// Points of a line that are marked.
const MARKS_MAX: usize = 40;
/// Colours that people with colour blindness tell apart (Okabe and Ito).
const COLOURS: [&str; 8] = [
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999999",
];

/// A line, or points if `joined` is false.
#[derive(Clone, Debug)]
pub struct Series {
    /// What the legend says.
    pub name: String,
    /// Points; those that are not above 0 are left out, on linear axes those below 0.
    pub points: Vec<(f64, f64)>,
    /// Whether the points are joined.
    pub joined: bool,
}

/// A plot.
#[derive(Clone, Debug)]
pub struct Plot {
    /// Title.
    pub title: String,
    /// What the horizontal axis shows, with its unit.
    pub x: String,
    /// What the vertical axis shows, with its unit.
    pub y: String,
    /// How both axes are divided.
    pub scale: Scale,
    /// Lines and points.
    pub series: Vec<Series>,
}

/// How an axis is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Powers of ten lie evenly.
    Logarithmic,
    /// Numbers lie evenly, beginning with 0.
    Linear,
}

/// In powers of ten, or in numbers.
struct Axis {
    scale: Scale,
    low: f64,
    high: f64,
    /// Between two lines of the grid.
    step: f64,
    from: f64,
    to: f64,
}

impl Axis {
    fn around(scale: Scale, values: impl Iterator<Item = f64>, from: f64, to: f64) -> Axis {
        let (low, high, step) = match scale {
            Scale::Logarithmic => powers_around(values),
            Scale::Linear => numbers_to(values.fold(0.0, f64::max)),
        };
        Axis {
            scale,
            low,
            high,
            step,
            from,
            to,
        }
    }

    fn place(&self, value: f64) -> f64 {
        let value = match self.scale {
            Scale::Logarithmic => value.log10(),
            Scale::Linear => value,
        };
        self.from + (value - self.low) / (self.high - self.low) * (self.to - self.from)
    }

    /// What stands beside a line of the grid.
    fn name(&self, tick: f64) -> String {
        match tick.fract() == 0.0 && (0.0..1e15).contains(&tick) {
            true => units::grouped(tick as u64),
            false => units::short(tick),
        }
    }

    fn ticks(&self) -> impl Iterator<Item = f64> {
        let count = ((self.high - self.low) / self.step).round() as i32;
        (0..=count).map(|index| {
            let value = self.low + self.step * f64::from(index);
            match self.scale {
                Scale::Logarithmic => 10f64.powi(value as i32),
                Scale::Linear => value,
            }
        })
    }
}

/// Whole powers of ten around the values.
fn powers_around(values: impl Iterator<Item = f64>) -> (f64, f64, f64) {
    let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
    for value in values.map(f64::log10) {
        low = low.min(value.floor());
        high = high.max(value.ceil());
    }
    if low > high {
        (low, high) = (0.0, 1.0);
    }
    if low == high {
        high += 1.0;
    }
    (low, high, 1.0)
}

/// From 0 to at least `most`, in four to ten steps of 1, 2 or 5 times a power of ten.
fn numbers_to(most: f64) -> (f64, f64, f64) {
    if most <= 0.0 {
        return (0.0, 1.0, 0.5);
    }
    let power = 10f64.powf((most / 4.0).log10().floor());
    let step = [5.0, 2.0, 1.0]
        .into_iter()
        .map(|factor| factor * power)
        .find(|step| step * 4.0 <= most)
        .unwrap_or(power);
    (0.0, step * (most / step).ceil(), step)
}

/// The plot as a document.
pub fn render(plot: &Plot) -> String {
    render_column(std::slice::from_ref(plot))
}

/// Plots, one below the other, as a document.
pub fn render_column(plots: &[Plot]) -> String {
    let mut text = document(WIDTH, HEIGHT * plots.len() as f64);
    for (index, plot) in plots.iter().enumerate() {
        let _ = writeln!(text, "<g transform=\"translate(0 {})\">", HEIGHT * index as f64);
        draw(&mut text, plot);
        text.push_str("</g>\n");
    }
    text.push_str("</svg>\n");
    text
}

fn draw(text: &mut String, plot: &Plot) {
    let has_place = |value: f64| {
        value.is_finite()
            && match plot.scale {
                Scale::Logarithmic => value > 0.0,
                Scale::Linear => value >= 0.0,
            }
    };
    let drawn = |(x, y): &(f64, f64)| has_place(*x) && has_place(*y);
    let points = || {
        plot.series
            .iter()
            .flat_map(|series| series.points.iter().filter(|point| drawn(point)))
    };
    let x_axis = Axis::around(plot.scale, points().map(|point| point.0), LEFT, WIDTH - RIGHT);
    let y_axis = Axis::around(plot.scale, points().map(|point| point.1), HEIGHT - BOTTOM, TOP);
    label(text, LEFT, 24.0, "start", &plot.title);
    label(text, (LEFT + WIDTH - RIGHT) / 2.0, HEIGHT - 14.0, "middle", &plot.x);
    label(text, 8.0, TOP - 16.0, "start", &plot.y);
    draw_grid(text, &x_axis, &y_axis);
    for (index, series) in plot.series.iter().enumerate() {
        let colour = COLOURS[index % COLOURS.len()];
        let places: Vec<(f64, f64)> = series
            .points
            .iter()
            .filter(|point| drawn(point))
            .map(|(x, y)| (x_axis.place(*x), y_axis.place(*y)))
            .collect();
        draw_series(text, &places, series.joined, colour);
        let y = TOP + 10.0 + 20.0 * index as f64;
        let x = WIDTH - RIGHT + 16.0;
        let _ = writeln!(
            text,
            "<rect x=\"{x}\" y=\"{}\" width=\"12\" height=\"12\" fill=\"{colour}\"/>",
            y - 10.0
        );
        label(text, x + 18.0, y, "start", &series.name);
    }
}

/// Horizontal bars in groups.
#[derive(Clone, Debug)]
pub struct Bars {
    /// Title.
    pub title: String,
    /// Name and bars of each group.
    pub groups: Vec<(String, Vec<Bar>)>,
}

/// One bar.
#[derive(Clone, Debug)]
pub struct Bar {
    /// Left of the bar.
    pub name: String,
    /// Length, 0 to 1.
    pub value: f64,
    /// Part of the bar that is filled dark, 0 to 1.
    pub filled: f64,
    /// Right of the bar.
    pub label: String,
}

/// Height of a line of a bar chart.
const LINE: f64 = 20.0;
/// Where bars begin and how long the longest is.
const BAR_LEFT: f64 = 270.0;
const BAR_WIDTH: f64 = 330.0;

/// The bars as a document.
pub fn render_bars(bars: &Bars) -> String {
    let lines: usize = bars.groups.iter().map(|(_, bars)| bars.len() + 2).sum();
    let height = TOP + LINE * lines as f64;
    let mut text = document(WIDTH, height);
    label(&mut text, 8.0, 24.0, "start", &bars.title);
    let longest = bars
        .groups
        .iter()
        .flat_map(|(_, bars)| bars)
        .map(|bar| bar.value)
        .fold(1e-9, f64::max);
    let mut y = TOP;
    for (name, bars) in &bars.groups {
        y += LINE;
        label(&mut text, 8.0, y, "start", name);
        for bar in bars {
            y += LINE;
            label(&mut text, BAR_LEFT - 8.0, y, "end", &bar.name);
            let width = BAR_WIDTH * (bar.value / longest).clamp(0.0, 1.0);
            for (width, colour) in [(width, "#b3d4ea"), (width * bar.filled.clamp(0.0, 1.0), COLOURS[0])] {
                let _ = writeln!(
                    text,
                    "<rect x=\"{BAR_LEFT}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"14\" fill=\"{colour}\"/>",
                    y - 12.0
                );
            }
            label(&mut text, BAR_LEFT + width + 8.0, y, "start", &bar.label);
        }
        y += LINE;
    }
    text.push_str("</svg>\n");
    text
}

fn document(width: f64, height: f64) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" \
         font-size=\"13\">\n<rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>\n"
    )
}

fn draw_grid(text: &mut String, x_axis: &Axis, y_axis: &Axis) {
    for tick in x_axis.ticks() {
        let x = x_axis.place(tick);
        let bottom = HEIGHT - BOTTOM;
        let _ = writeln!(text, "<path d=\"M{x:.1} {TOP}V{bottom}\" stroke=\"#ddd\"/>");
        label(text, x, bottom + 18.0, "middle", &x_axis.name(tick));
    }
    for tick in y_axis.ticks() {
        let y = y_axis.place(tick);
        let right = WIDTH - RIGHT;
        let _ = writeln!(text, "<path d=\"M{LEFT} {y:.1}H{right}\" stroke=\"#ddd\"/>");
        label(text, LEFT - 8.0, y + 4.0, "end", &y_axis.name(tick));
    }
}

fn draw_series(text: &mut String, places: &[(f64, f64)], joined: bool, colour: &str) {
    if joined && places.len() > 1 {
        let path: Vec<String> = places.iter().map(|(x, y)| format!("{x:.1} {y:.1}")).collect();
        let _ = writeln!(
            text,
            "<path d=\"M{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
            path.join("L")
        );
    }
    // A line through many points shows them well enough.
    let has_marks = !joined || places.len() <= MARKS_MAX;
    for (x, y) in places.iter().filter(|_| has_marks) {
        let _ = writeln!(
            text,
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\" fill=\"{colour}\"/>"
        );
    }
}

fn label(text: &mut String, x: f64, y: f64, anchor: &str, words: &str) {
    let words = words.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let _ = writeln!(
        text,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{words}</text>"
    );
}
