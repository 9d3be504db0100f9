//! The fields of a query, each at most once. What they mean is up to [`crate::view`] and
//! [`crate::pprof`]; a field that neither asks for is left alone.

use crate::failure::Failure;

/// The fields that are set to something, in their order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fields(Vec<(String, String)>);

impl Fields {
    /// Parses a query. An empty field counts as one that is not there: a form sends all it has.
    pub(crate) fn parse(query: Option<&str>) -> Self {
        let pairs = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
        Self(
            pairs
                .filter(|(_, value)| !value.is_empty())
                .map(|(name, value)| (name.into_owned(), value.into_owned()))
                .collect(),
        )
    }

    /// The value of a field.
    pub(crate) fn get(&self, field: &str) -> Result<Option<&str>, Failure> {
        let mut values = self.0.iter().filter(|(name, _)| name == field).map(|(_, v)| v.as_str());
        match (values.next(), values.next()) {
            (first, None) => Ok(first),
            (_, Some(second)) => Err(Failure::field(field, second, "one value, not several")),
        }
    }

    /// The fields whose names begin so, with the rest of their names.
    pub(crate) fn beginning<'a>(
        &'a self,
        prefix: &'a str,
    ) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.0.iter().filter_map(move |(name, value)| Some((name.strip_prefix(prefix)?, &**value)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_counts_once_and_not_when_empty() {
        let fields = Fields::parse(Some("a=1&b=&c=x%20y+z&c2=&label.k=v&a=2&%3Cb%3E=%ff"));
        assert_eq!(fields.get("b"), Ok(None));
        assert_eq!(fields.get("c"), Ok(Some("x y z")));
        assert_eq!(fields.get("a"), Err(Failure::field("a", "2", "one value, not several")));
        assert_eq!(fields.beginning("label.").collect::<Vec<_>>(), [("k", "v")]);
        assert_eq!(Fields::parse(None).get("a"), Ok(None));
    }
}
