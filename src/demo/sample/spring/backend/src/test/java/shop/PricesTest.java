package shop;

import static org.junit.jupiter.api.Assertions.assertEquals;

import org.junit.jupiter.api.Test;

class PricesTest {

    @Test
    void onePieceCostsItsPrice() {
        assertEquals(250, Prices.total(1));
    }

    @Test
    void theTenthPieceIsCheaper() {
        assertEquals(9 * 250 + 200, Prices.total(10));
    }

    @Test
    void nothingCostsNothing() {
        assertEquals(0, Prices.total(0));
    }
}
