//! What an order costs, in cents.

const PIECE: u64 = 250;

/// The price of so many pieces: from the tenth on, each is a fifth cheaper.
pub fn total(quantity: u64) -> u64 {
    let full = quantity.min(9);
    let reduced = quantity - full;
    full * PIECE + reduced * PIECE * 4 / 5
}

#[cfg(test)]
mod tests {
    use super::total;

    #[test]
    fn one_piece_costs_its_price() {
        assert_eq!(total(1), 250);
    }

    #[test]
    fn the_tenth_piece_is_cheaper() {
        assert_eq!(total(10), 9 * 250 + 200);
    }

    #[test]
    fn nothing_costs_nothing() {
        assert_eq!(total(0), 0);
    }
}
