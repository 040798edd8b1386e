package shop;

/** What an order costs, in cents. */
final class Prices {

    private static final long PIECE = 250;

    private Prices() {
    }

    /** The price of so many pieces: from the tenth on, each is a fifth cheaper. */
    static long total(long quantity) {
        long full = Math.min(quantity, 9);
        long reduced = quantity - full;
        return full * PIECE + reduced * PIECE * 4 / 5;
    }
}
