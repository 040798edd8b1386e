package shop;

import jakarta.servlet.Filter;
import jakarta.servlet.http.HttpServletResponse;
import org.springframework.boot.SpringApplication;
import org.springframework.boot.autoconfigure.SpringBootApplication;
import org.springframework.context.annotation.Bean;
import org.springframework.scheduling.annotation.EnableScheduling;

@SpringBootApplication
@EnableScheduling
public class Shop {

    public static void main(String[] args) {
        SpringApplication.run(Shop.class, args);
    }

    /** Every answer says which release gave it. */
    @Bean
    Filter release() {
        String release = System.getenv().getOrDefault("SWITCHOVER_RELEASE", "none");
        return (request, response, chain) -> {
            ((HttpServletResponse) response).setHeader("X-Release", release);
            chain.doFilter(request, response);
        };
    }
}
