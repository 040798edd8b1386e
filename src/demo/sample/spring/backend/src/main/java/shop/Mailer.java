package shop;

import org.slf4j.Logger;
import org.slf4j.LoggerFactory;
import org.springframework.context.annotation.Profile;
import org.springframework.scheduling.annotation.Scheduled;
import org.springframework.stereotype.Component;
import org.springframework.web.client.RestClient;
import org.springframework.web.client.RestClientException;

/** The worker: tells the warehouse what was ordered, every five seconds. */
@Component
@Profile("mailer")
class Mailer {

    private static final Logger LOG = LoggerFactory.getLogger(Mailer.class);

    private final RestClient backend = RestClient.create("http://backend:7070");

    @Scheduled(fixedDelay = 5000)
    void tell() {
        try {
            LOG.info("{} orders so far", backend.get().uri("/api/orders/count").retrieve().body(Long.class));
        } catch (RestClientException e) {
            LOG.warn("the shop does not answer: {}", e.getMessage());
        }
    }
}
