/* The native methods of Threads.java. */
#include <jni.h>
#include <sys/prctl.h>
#include <sys/psx_syscall.h>
#include <sys/syscall.h>

JNIEXPORT jint JNICALL Java_Threads_noNewPrivs(JNIEnv *env, jclass class) {
    (void)env, (void)class;
    return (jint)psx_syscall(SYS_prctl, PR_SET_NO_NEW_PRIVS, 1);
}

JNIEXPORT jint JNICALL Java_Threads_hasNoNewPrivs(JNIEnv *env, jclass class) {
    (void)env, (void)class;
    return prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0);
}
