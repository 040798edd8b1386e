package shop;

import org.springframework.web.bind.annotation.GetMapping;
import org.springframework.web.bind.annotation.PostMapping;
import org.springframework.web.bind.annotation.RequestBody;
import org.springframework.web.bind.annotation.RequestMapping;
import org.springframework.web.bind.annotation.RequestParam;
import org.springframework.web.bind.annotation.RestController;

@RestController
@RequestMapping("/api")
class Api {

    /** What this version of the shop says. */
    private static final String GREETING = "Welcome to the shop";

    private final Purchases purchases;
    private final Till till;

    Api(Purchases purchases, Till till) {
        this.purchases = purchases;
        this.till = till;
    }

    @GetMapping
    String greeting() {
        return GREETING;
    }

    @GetMapping("/price")
    long price(@RequestParam(defaultValue = "1") long quantity) {
        return Prices.total(quantity);
    }

    @PostMapping("/orders")
    String order(@RequestBody String items) {
        till.ring();
        return "order " + purchases.save(new Purchase(items)).getId();
    }

    @GetMapping("/orders/count")
    long count() {
        return purchases.count();
    }

    @GetMapping("/slow")
    String slow(@RequestParam(defaultValue = "1000") long ms) throws InterruptedException {
        Thread.sleep(Math.min(ms, 10_000));
        return "slow, but well";
    }
}
