// Threads.java: tests a pool of Java threads, and the internal threads of the Java virtual machine.
// After the call, each thread of the pool reports its own state. /proc shows the state of every thread.
import java.nio.file.*;
import java.util.*;
import java.util.concurrent.*;

public class Threads {
    /** Sets no_new_privs in every thread by psx_syscall3(). Returns 0 or -1. */
    static native int noNewPrivs();

    /** Returns no_new_privs of the calling thread, as prctl(2) reports it. */
    static native int hasNoNewPrivs();

    /** Counts the values of no_new_privs that /proc shows for the threads. */
    static Map<String, Integer> seen() throws Exception {
        Map<String, Integer> counts = new TreeMap<>();
        try (DirectoryStream<Path> tasks = Files.newDirectoryStream(Path.of("/proc/self/task"))) {
            for (Path task : tasks) {
                try {
                    for (String line : Files.readAllLines(task.resolve("status"))) {
                        if (line.startsWith("NoNewPrivs:")) counts.merge(line.split("\t")[1], 1, Integer::sum);
                    }
                } catch (java.io.IOException over) {
                    // The thread has ended meanwhile.
                }
            }
        }
        return counts;
    }

    static void check(boolean holds, Object what) {
        if (holds) return;
        System.out.println(what);
        System.exit(1);
    }

    public static void main(String[] arguments) throws Exception {
        System.load(arguments[0]);
        int count = 8;
        ExecutorService pool = Executors.newFixedThreadPool(count);
        CyclicBarrier all = new CyclicBarrier(count);
        Callable<Integer> ask = () -> {
            all.await();
            return hasNoNewPrivs();
        };
        for (int expected = 0; expected < 2; expected++) {
            for (Future<Integer> has : pool.invokeAll(Collections.nCopies(count, ask))) {
                check(has.get() == expected, "a thread of the pool: " + has.get());
            }
            Map<String, Integer> counts = seen();
            check(counts.keySet().equals(Set.of("" + expected)), counts);
            check(counts.get("" + expected) > count, counts);
            // Calls also work while the garbage collector runs.
            for (int n = 0; n < 200; n++) {
                byte[] garbage = new byte[1 << 20];
                if (n % 20 == 0) System.gc();
                if (expected == 0) check(noNewPrivs() == 0, "the call");
            }
        }
        pool.shutdown();
        System.out.println("all of them");
    }
}
