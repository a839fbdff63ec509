// Tests threads that language libraries create: std::thread, and a pool of OpenMP.
#include "threads.h"

#include <sys/prctl.h>
#include <sys/psx_syscall.h>
#include <sys/syscall.h>

#include <atomic>
#include <thread>
#include <vector>

int main() {
    std::atomic<bool> over{false};
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; i++) {
        threads.emplace_back([&over] {
            while (!over) std::this_thread::yield();
        });
    }
    int team = 0;
#pragma omp parallel num_threads(4) reduction(+ : team)
    team += 1;
    CHECK(team == 4);
    CHECK(all_have("NoNewPrivs", "0", 8));
    CHECK(psx_syscall(SYS_prctl, PR_SET_NO_NEW_PRIVS, 1) == 0);
    CHECK(all_have("NoNewPrivs", "1", 8));
    int set = 0;
#pragma omp parallel num_threads(4) reduction(+ : set)
    set += prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0);
    CHECK(set == 4);
    over = true;
    for (auto &thread : threads) thread.join();
    puts("all 8");
}
