//! How far labels agree with ratings that came with the texts: a table, and a rank correlation with its interval.
//!
//! It says whether a model suits the data; it does not say which of both is wrong.

use super::label::Label;

/// Ratings of so many different values get a row each, such as stars; more are cut into [`BANDS`].
const ROWS_MAX: usize = 11;
/// Bands of equal size.
const BANDS: usize = 5;
/// Fewer pairs tell nothing: the interval would reach from one end to the other.
const PAIRS_MIN: usize = 10;
/// z for 95%.
const Z: f64 = 1.959_963_984_540_054;

/// The documents of one row of the table: how often each label was given, in the order of
/// [`AgreementTable::labels`], and their mean score.
#[derive(Debug, Clone, PartialEq)]
pub struct AgreementRow {
    /// Lowest and highest rating; equal for a row of its own value.
    pub ratings: (f64, f64),
    pub counts: Vec<u64>,
    /// `None` for a task without scores.
    pub mean_score: Option<f64>,
}

/// Ratings against labels.
#[derive(Debug, Clone, PartialEq)]
pub struct AgreementTable {
    /// The model's, in its order.
    pub labels: Vec<String>,
    /// By rating, ascending.
    pub rows: Vec<AgreementRow>,
    pub correlation: Option<Correlation>,
}

/// Spearman's rank correlation between rating and score, with its 95% interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Correlation {
    pub pairs: usize,
    pub coefficient: f64,
    pub low: f64,
    pub high: f64,
}

/// One labelled document with a rating.
#[derive(Debug, Clone, PartialEq)]
pub struct Rated {
    pub rating: f64,
    pub label: String,
    /// See [`score`].
    pub score: Option<f64>,
}

/// From -1 to 1: the probability of `positive` less that of `negative`. `None` for labels of another task.
pub fn score(label: &Label) -> Option<f64> {
    let probability = |class: &str| {
        let index = label.classes.iter().position(|name| &**name == class)?;
        label.probabilities.get(index).copied().map(f64::from)
    };
    Some(probability("positive")? - probability("negative")?)
}

/// Puts the documents of one model into a table. `labels`: the model's, in its order.
pub fn agreement(labels: &[String], documents: &[Rated]) -> AgreementTable {
    let mut sorted: Vec<&Rated> = documents.iter().filter(|document| document.rating.is_finite()).collect();
    sorted.sort_by(|a, b| a.rating.total_cmp(&b.rating));
    let row = |documents: &[&Rated]| AgreementRow {
        ratings: (documents[0].rating, documents[documents.len() - 1].rating),
        counts: labels
            .iter()
            .map(|label| documents.iter().filter(|document| document.label == *label).count() as u64)
            .collect(),
        mean_score: mean(documents.iter().filter_map(|document| document.score)),
    };
    let pairs: Vec<(f64, f64)> =
        sorted.iter().filter_map(|document| Some((document.rating, document.score?))).collect();
    AgreementTable {
        labels: labels.to_vec(),
        rows: bands(&sorted).into_iter().map(row).collect(),
        correlation: rank_correlation(&pairs),
    }
}

/// Documents by rating: a group a value, or bands of about equal size where there are many values. Equal ratings stay
/// together.
fn bands<'a, 'b>(sorted: &'b [&'a Rated]) -> Vec<&'b [&'a Rated]> {
    let by_value: Vec<&[&Rated]> = sorted.chunk_by(|a, b| a.rating.total_cmp(&b.rating).is_eq()).collect();
    if by_value.len() <= ROWS_MAX {
        return by_value;
    }
    let mut bands = Vec::new();
    let (mut start, mut end) = (0, 0);
    for group in by_value {
        end += group.len();
        if end * BANDS >= sorted.len() * (bands.len() + 1) {
            bands.push(&sorted[start..end]);
            start = end;
        }
    }
    bands
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values.fold((0.0, 0_u64), |(sum, count), value| (sum + value, count + 1));
    (count > 0).then(|| sum / count as f64)
}

/// Spearman 1904, as Pearson's correlation of the ranks, equal values sharing their mean rank. The interval is Fisher's
/// z with the variance of Bonett and Wright 2000, "Sample size requirements for estimating Pearson, Kendall and
/// Spearman correlations", equation 4. `None` for fewer than ten pairs, or where one side is all equal.
pub fn rank_correlation(pairs: &[(f64, f64)]) -> Option<Correlation> {
    if pairs.len() < PAIRS_MIN {
        return None;
    }
    let left = ranks(&pairs.iter().map(|pair| pair.0).collect::<Vec<_>>());
    let right = ranks(&pairs.iter().map(|pair| pair.1).collect::<Vec<_>>());
    let middle = f64::midpoint(pairs.len() as f64, 1.0);
    let sum = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| (a - middle) * (b - middle)).sum::<f64>();
    let spread = (sum(&left, &left) * sum(&right, &right)).sqrt();
    if spread <= 0.0 {
        return None;
    }
    let coefficient = (sum(&left, &right) / spread).clamp(-1.0, 1.0);
    let error = ((1.0 + coefficient * coefficient / 2.0) / (pairs.len() as f64 - 3.0)).sqrt();
    // At the very ends z is infinite, and so are both bounds.
    let bound = |sign: f64| (coefficient.atanh() + sign * Z * error).tanh();
    Some(Correlation { pairs: pairs.len(), coefficient, low: bound(-1.0), high: bound(1.0) })
}

/// The rank of each value from 1 on; equal values share the mean of theirs.
fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|a, b| values[*a].total_cmp(&values[*b]));
    let mut ranks = vec![0.0; values.len()];
    let mut before = 0.0;
    for equal in order.chunk_by(|a, b| values[*a].total_cmp(&values[*b]).is_eq()) {
        let last = before + equal.len() as f64;
        for index in equal {
            ranks[*index] = f64::midpoint(before + 1.0, last);
        }
        before = last;
    }
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rated(rating: f64, label: &str, score: f64) -> Rated {
        Rated { rating, label: label.into(), score: Some(score) }
    }

    #[test]
    fn equal_values_share_their_mean_rank() {
        assert_eq!(ranks(&[10.0, 20.0, 20.0, 5.0]), [2.0, 3.5, 3.5, 1.0]);
    }

    /// The example of Spearman's coefficient in Wikipedia (IQ and hours of television): -29/165.
    #[test]
    fn the_coefficient_is_spearmans() {
        let pairs = [
            (86.0, 2.0),
            (97.0, 20.0),
            (99.0, 28.0),
            (100.0, 27.0),
            (101.0, 50.0),
            (103.0, 29.0),
            (106.0, 7.0),
            (110.0, 17.0),
            (112.0, 6.0),
            (113.0, 12.0),
        ];
        let correlation = rank_correlation(&pairs).unwrap();
        assert!((correlation.coefficient + 29.0 / 165.0).abs() < 1e-12, "{correlation:?}");
        // By hand: atanh(-0.17576) = -0.17760; sqrt((1 + 0.03089 / 2) / 7) = 0.38087.
        assert!((correlation.low + 0.7284).abs() < 1e-3, "{correlation:?}");
        assert!((correlation.high - 0.5149).abs() < 1e-3, "{correlation:?}");
    }

    #[test]
    fn what_tells_nothing_has_no_coefficient() {
        assert_eq!(rank_correlation(&[(1.0, 1.0); 9]), None);
        assert_eq!(rank_correlation(&[(1.0, 0.5); 50]), None);
        let perfect: Vec<(f64, f64)> = (0..20).map(|n| (f64::from(n), f64::from(n))).collect();
        let correlation = rank_correlation(&perfect).unwrap();
        assert_eq!((correlation.coefficient, correlation.low, correlation.high), (1.0, 1.0, 1.0));
    }

    #[test]
    fn few_ratings_have_a_row_each_and_many_are_cut_into_bands() {
        let labels = ["negative".to_owned(), "positive".to_owned()];
        let stars: Vec<Rated> = [(1.0, "negative", -0.5), (5.0, "positive", 0.9), (1.0, "positive", 0.1)]
            .into_iter()
            .map(|(rating, label, score)| rated(rating, label, score))
            .collect();
        let table = agreement(&labels, &stars);
        assert_eq!(
            table.rows,
            [
                AgreementRow { ratings: (1.0, 1.0), counts: vec![1, 1], mean_score: Some(-0.2) },
                AgreementRow { ratings: (5.0, 5.0), counts: vec![0, 1], mean_score: Some(0.9) },
            ]
        );
        let many: Vec<Rated> = (0..100).map(|n| rated(f64::from(n), "negative", 0.0)).collect();
        let bounds: Vec<_> = agreement(&labels, &many).rows.iter().map(|row| row.ratings).collect();
        assert_eq!(bounds, [(0.0, 19.0), (20.0, 39.0), (40.0, 59.0), (60.0, 79.0), (80.0, 99.0)]);
    }

    #[test]
    fn every_document_is_in_one_row() {
        let labels = ["negative".to_owned(), "positive".to_owned()];
        let mut documents: Vec<Rated> = (0..40).map(|n| rated(f64::from(n % 13), "positive", 0.0)).collect();
        documents.extend((0..60).map(|_| rated(3.0, "negative", 0.0)));
        let rows = agreement(&labels, &documents).rows;
        assert_eq!(rows.iter().flat_map(|row| &row.counts).sum::<u64>(), 100);
        assert!(rows.windows(2).all(|pair| pair[0].ratings.1 < pair[1].ratings.0), "{rows:?}");
    }
}
