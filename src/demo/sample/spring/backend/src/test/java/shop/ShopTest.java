package shop;

import static org.assertj.core.api.Assertions.assertThat;

import org.junit.jupiter.api.Test;
import org.springframework.beans.factory.annotation.Autowired;
import org.springframework.boot.test.context.SpringBootTest;
import org.springframework.boot.test.context.SpringBootTest.WebEnvironment;
import org.springframework.boot.test.web.client.TestRestTemplate;

/** The whole shop over HTTP, with its database and its migration. */
@SpringBootTest(webEnvironment = WebEnvironment.RANDOM_PORT)
class ShopTest {

    @Autowired
    private TestRestTemplate http;

    @Test
    void anOrderIsCounted() {
        long before = http.getForObject("/api/orders/count", Long.class);
        assertThat(http.postForObject("/api/orders", "a pen", String.class)).startsWith("order ");
        assertThat(http.getForObject("/api/orders/count", Long.class)).isEqualTo(before + 1);
    }

    @Test
    void itSaysThatItIsWell() {
        assertThat(http.getForEntity("/actuator/health", String.class).getStatusCode().value()).isEqualTo(200);
    }
}
