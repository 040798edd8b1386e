package shop;

import java.util.concurrent.atomic.AtomicLong;
import org.springframework.boot.actuate.health.Health;
import org.springframework.boot.actuate.health.HealthIndicator;
import org.springframework.stereotype.Component;

/** Counts what was sold since the start, and tells how it is as a part of /actuator/health. */
@Component
class Till implements HealthIndicator {

    private final AtomicLong sold = new AtomicLong();

    void ring() {
        sold.incrementAndGet();
    }

    @Override
    public Health health() {
        return Health.up().withDetail("sold", sold.get()).build();
    }
}
