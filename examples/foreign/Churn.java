import java.io.FileInputStream;
import java.io.IOException;
import java.lang.management.GarbageCollectorMXBean;
import java.lang.management.ManagementFactory;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicInteger;

/** Threads of Java, for embedded_java.rs: some that allocate, and one that collects garbage all the time. */
public final class Churn {
    private static final int WORKERS = 4;
    private static final CountDownLatch started = new CountDownLatch(WORKERS + 1);
    private static final CountDownLatch done = new CountDownLatch(WORKERS + 1);
    private static final AtomicInteger able = new AtomicInteger();
    private static volatile boolean over;
    private static volatile byte[] kept;

    private Churn() {}

    public static int start() throws InterruptedException {
        for (int worker = 0; worker < WORKERS; worker++) {
            thread(() -> kept = new byte[1 << 16]);
        }
        thread(System::gc);
        started.await();
        return WORKERS + 1;
    }

    private static void thread(Runnable body) {
        Thread thread = new Thread(() -> {
            started.countDown();
            while (!over) body.run();
            // Only root may read it.
            try (FileInputStream file = new FileInputStream("/etc/shadow")) {
                if (file.read() >= 0) able.incrementAndGet();
            } catch (IOException refused) {
                // The kernel refuses the access, as it should.
            }
            done.countDown();
        });
        thread.setDaemon(true);
        thread.start();
    }

    public static int collections() {
        long count = 0;
        for (GarbageCollectorMXBean bean : ManagementFactory.getGarbageCollectorMXBeans()) {
            count += bean.getCollectionCount();
        }
        return (int) count;
    }

    /** Has each thread try, and returns how many could. The threads end. */
    public static int attempts() throws InterruptedException {
        over = true;
        done.await();
        return able.get();
    }
}
