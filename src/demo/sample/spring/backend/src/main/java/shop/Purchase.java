package shop;

import jakarta.persistence.Entity;
import jakarta.persistence.GeneratedValue;
import jakarta.persistence.GenerationType;
import jakarta.persistence.Id;

/** What somebody ordered. */
@Entity
class Purchase {

    @Id
    @GeneratedValue(strategy = GenerationType.IDENTITY)
    private Long id;
    private String items;

    protected Purchase() {
    }

    Purchase(String items) {
        this.items = items.substring(0, Math.min(items.length(), 200));
    }

    Long getId() {
        return id;
    }
}
