//! The recorded windows: tokens and passes of real documents, in their own order. `record.py` made the files.

/// Passes of the network whose depths were recorded.
pub const PASSES: usize = 6;

/// What was recorded of one window.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Special tokens included.
    pub length: usize,
    /// Passes it computes until early exit lets it go.
    pub passes: usize,
}

/// The windows of one document.
pub type Document = Vec<Shape>;

/// The documents of one source.
pub struct Set {
    pub name: &'static str,
    pub documents: Vec<Document>,
}

/// All sets, the shortest texts first.
pub fn sets() -> [Set; 3] {
    [
        Set::parse("short", include_str!("lengths/short.txt")),
        Set::parse("reviews", include_str!("lengths/reviews.txt")),
        Set::parse("long", include_str!("lengths/long.txt")),
    ]
}

impl Set {
    fn parse(name: &'static str, file: &str) -> Self {
        let lines = file.lines().filter(|line| !line.starts_with('#'));
        Self { name, documents: lines.map(|line| line.split(' ').map(Shape::parse).collect()).collect() }
    }

    /// Tokens that a document computes on average, counted once for each pass.
    pub fn token_passes(&self) -> f64 {
        let all: usize = self.documents.iter().flatten().map(|window| window.length * window.passes).sum();
        all as f64 / self.documents.len() as f64
    }
}

impl Shape {
    fn parse(word: &str) -> Self {
        let numbers =
            word.split_once(':').and_then(|(length, passes)| Some((length.parse().ok()?, passes.parse().ok()?)));
        let Some((length, passes)) = numbers else { panic!("`{word}` is not `length:passes`") };
        assert!(length > 0 && (1..=PASSES).contains(&passes), "`{word}` is out of range");
        Self { length, passes }
    }
}
